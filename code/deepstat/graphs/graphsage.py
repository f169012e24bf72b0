"""The basic layer of message passing, with its own weights for a node and for the aggregate of its neighbours.

Chapter: graphs/message_passing.
"""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.graphs.message_passing import REDUCTIONS, check_edges, check_features, check_sizes, reduce_at


class SAGEConv(nn.Module):
    r"""The layer :math:`\mathbf h'_v = \boldsymbol\Omega_1 \mathbf h_v + \boldsymbol\Omega_2 \mathbf m_v + \boldsymbol\beta`.

    :math:`\mathbf m_v` is the mean, maximum or sum of :math:`\mathbf h_u` over the edges :math:`u \to v`. With the mean
    it is the layer of Hamilton, Ying and Leskovec, *Inductive Representation Learning on Large Graphs*, 2017,
    algorithm 1, lines 4 and 5, without the activation; their scaling of every row to length one (line 7) is left
    out, and their maximum has one more layer before it. With the sum it is the basic graph network of the lecture.

    Args:
        inputs: features of a node.
        outputs: features of a node after the layer.
        reduce: ``"mean"``, ``"max"`` or ``"sum"``.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> ``(nodes, outputs)``.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, ``reduce`` is another word, ``x`` has another
            shape or is not a floating point tensor, or ``edge_index`` does not hold edges between its rows.
    """

    def __init__(self, inputs: int, outputs: int, reduce: str = "mean"):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs)
        if reduce not in REDUCTIONS:
            raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
        self.reduce = reduce
        self.itself = nn.Linear(inputs, outputs, bias=False)
        self.neighbours = nn.Linear(inputs, outputs)

    def forward(
        self,
        x: Float[Tensor, "nodes inputs"],
        edge_index: Int64[Tensor, "2 edges"],
    ) -> Float[Tensor, "nodes outputs"]:
        check_features(x, self.itself.in_features)
        check_edges(edge_index, len(x))
        source, target = edge_index
        messages = x.index_select(0, source)
        m = reduce_at(messages, target, len(x), self.reduce)
        return self.itself(x) + self.neighbours(m)
