"""One row for each graph by a weighted sum of its nodes, with weights that the nodes themselves decide.

Chapter: graphs/sampling_and_pooling.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.graphs.message_passing import check_features, check_sizes, reduce_at, softmax_at
from deepstat.graphs.readout import check_batch


class AttentionPooling(nn.Module):
    r"""A weighted mean of the nodes of a graph, :math:`\mathbf h_G = \sum_v \alpha_v\, (\boldsymbol\Omega \mathbf h_v + \boldsymbol\beta)`.

    The weights :math:`\alpha_v` are the softmax of :math:`\mathbf w^\top \mathbf h_v` over the nodes of the graph. With networks
    in place of the two linear maps this is PyTorch Geometric's ``AttentionalAggregation``.

    Args:
        inputs: features of a node.
        outputs: features of a graph.

    Shapes: ``x (nodes, inputs)``, ``batch (nodes,)`` in any order, ``graphs`` -> ``(graphs, outputs)``; a graph without
    nodes has zeros.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, ``x`` has another shape or is not a floating
            point tensor, or ``batch`` does not name one of ``graphs`` graphs for each row.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs)
        self.score = nn.Linear(inputs, 1, bias=False)  # a constant would cancel in the softmax
        self.value = nn.Linear(inputs, outputs)

    def weights(
        self, x: Float[Tensor, "nodes inputs"], batch: Int64[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "nodes 1"]:
        """The weight of each node, shape ``(nodes, 1)``; those of a graph add up to one."""
        check_features(x, self.score.in_features)
        check_batch(batch, len(x), graphs)
        return softmax_at(self.score(x), batch, graphs)

    def forward(
        self, x: Float[Tensor, "nodes inputs"], batch: Int64[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "graphs outputs"]:
        return reduce_at(self.weights(x, batch, graphs) * self.value(x), batch, graphs)


class GatedPooling(nn.Module):
    r"""A gated sum of the nodes of a graph, :math:`\mathbf h_G = \tanh \sum_v \sigma(\mathbf g_v) \odot \tanh(\mathbf u_v)`.

    Li, Tarlow, Brockschmidt and Zemel, *Gated Graph Sequence Neural Networks*, 2016, their graph level output,
    with affine maps :math:`\mathbf g_v, \mathbf u_v` of :math:`\mathbf h_v` for their two networks. The
    weights do not add up to one, so the result depends on the number of nodes.

    Args:
        inputs: features of a node.
        outputs: features of a graph.

    Shapes: ``x (nodes, inputs)``, ``batch (nodes,)`` in any order, ``graphs`` -> ``(graphs, outputs)``; a graph without
    nodes has zeros.

    Raises:
        TypeError, ValueError: as :class:`AttentionPooling`.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs)
        self.gate, self.value = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(
        self, x: Float[Tensor, "nodes inputs"], batch: Int64[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "graphs outputs"]:
        check_features(x, self.gate.in_features)
        check_batch(batch, len(x), graphs)
        gated = torch.sigmoid(self.gate(x)) * torch.tanh(self.value(x))
        return torch.tanh(reduce_at(gated, batch, graphs))
