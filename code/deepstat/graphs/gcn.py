"""Graph convolution by the normalized adjacency matrix with self-loops.

Chapter: graphs/message_passing.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.graphs.message_passing import check_edges, check_features, check_sizes, degrees_and_loops, reduce_at


def propagate(x: Float[Tensor, "nodes features"], edge_index: Int64[Tensor, "2 edges"]) -> Float[Tensor, "nodes features"]:
    r"""The product :math:`\tilde{\mathbf D}^{-1/2} \tilde{\mathbf A} \tilde{\mathbf D}^{-1/2} \mathbf X`: scale, sum, scale.

    :math:`\tilde{\mathbf A} = \mathbf A + \mathbf I`, and :math:`\tilde d_v` is one more than the number of edges that end
    at :math:`v`. A self-loop in ``edge_index`` changes nothing: the diagonal of :math:`\tilde{\mathbf A}` is one with it
    and without it, as in PyTorch Geometric. The edges are not checked.

    Args:
        x: one row for each node, shape ``(nodes, features)``.
        edge_index: source and target of each edge, shape ``(2, edges)``.

    Returns:
        Shape ``(nodes, features)``.
    """
    source, target = edge_index
    wide = torch.promote_types(x.dtype, torch.float32)
    d, loops = degrees_and_loops(edge_index, len(x), wide)
    root = (1 + d).rsqrt().to(x.dtype)[:, None]
    h = root * x
    total = reduce_at(h.index_select(0, source), target, len(x))
    return root * (total + (1 - loops).to(x.dtype)[:, None] * h)


class GCNConv(nn.Module):
    r"""The layer of Kipf and Welling: a linear map of the features, then :func:`propagate`, then a bias.

    *Semi-Supervised Classification with Graph Convolutional Networks*, 2017, equation 2, with a bias and without the
    activation: :math:`\tilde{\mathbf D}^{-1/2} \tilde{\mathbf A} \tilde{\mathbf D}^{-1/2} \mathbf H \boldsymbol\Omega^\top`.
    Node by node, with :math:`\tilde d_v = 1 + |\mathcal N(v)|`,

    .. math::
        \mathbf h'_v = \boldsymbol\beta + \boldsymbol\Omega \Bigl(\frac{\mathbf h_v}{\tilde d_v}
            + \sum_{u \in \mathcal N(v)} \frac{\mathbf h_u}{\sqrt{\tilde d_u \tilde d_v}}\Bigr).

    Args:
        inputs: features of a node.
        outputs: features of a node after the layer.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> ``(nodes, outputs)``.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, ``x`` has another shape or is not a floating
            point tensor, or ``edge_index`` does not hold edges between its rows.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs)
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(
        self,
        x: Float[Tensor, "nodes inputs"],
        edge_index: Int64[Tensor, "2 edges"],
    ) -> Float[Tensor, "nodes outputs"]:
        check_features(x, self.linear.in_features)
        check_edges(edge_index, len(x))
        return propagate(self.linear(x), edge_index) + self.bias
