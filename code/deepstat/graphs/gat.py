"""Attention among the neighbours of a node, in its first form and in the one that can rank them by the node.

Chapter: graphs/message_passing.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from deepstat.graphs.message_passing import check_edges, check_features, check_sizes, reduce_at, softmax_at


class _Attention(nn.Module):
    """What both have in common: loops, softmax over a node's edges, weighted sum, heads side by side."""

    def __init__(self, inputs: int, outputs: int, heads: int):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, heads=heads)
        self.inputs, self.outputs, self.heads = inputs, outputs, heads
        self.bias = nn.Parameter(torch.zeros(heads * outputs))

    def values_and_scores(self, x: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _weighted(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_features(x, self.inputs)
        check_edges(edge_index, len(x))
        loops = torch.arange(len(x), device=edge_index.device)
        source, target = torch.cat([edge_index[0], loops]), torch.cat([edge_index[1], loops])
        values, scores = self.values_and_scores(x, source, target)
        old = functional.pad(edge_index[0] == edge_index[1], (0, len(x)))  # the loops of edge_index itself
        return target, values, softmax_at(scores.masked_fill(old[:, None], -torch.inf), target, len(x))

    def attention(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"]
    ) -> Float[Tensor, "looped heads"]:
        """The weights of the edges, then of the loops of the nodes: shape ``(edges + nodes, heads)``.

        They add up to one over the edges and the loop of each target. A loop of ``edge_index`` itself has weight 0.
        """
        return self._weighted(x, edge_index)[2]

    def forward(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes features"]:
        target, values, weights = self._weighted(x, edge_index)
        messages = weights[..., None] * values  # (edges + nodes, heads, outputs)
        return reduce_at(messages.flatten(1), target, len(x)) + self.bias


class GATConv(_Attention):
    r"""Graph attention, first version: :math:`\mathbf h'_v = \boldsymbol\beta + \sum_u \alpha_{uv} \boldsymbol\Omega \mathbf h_u`.

    The sum is over the neighbours of :math:`v` and :math:`v` itself, and :math:`\alpha_{uv}` is their softmax of
    :math:`\mathrm{LeakyReLU}(\mathbf a_1^\top \boldsymbol\Omega \mathbf h_u + \mathbf a_2^\top \boldsymbol\Omega \mathbf h_v)`, slope 0.2.
    Veličković, Cucurull, Casanova, Romero, Liò and Bengio, *Graph Attention Networks*, 2018, equations 1 to 5; their
    vector :math:`\mathbf a` is our :math:`(\mathbf a_2, \mathbf a_1)`. Heads have their own weights and stand side by side.

    Args:
        inputs: features of a node.
        outputs: features of a node after the layer, for each head.
        heads: number of heads.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> ``(nodes, heads * outputs)``.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, ``x`` has another shape or is not a floating
            point tensor, or ``edge_index`` does not hold edges between its rows.
    """

    def __init__(self, inputs: int, outputs: int, heads: int = 1):
        super().__init__(inputs, outputs, heads)
        self.linear = nn.Linear(inputs, heads * outputs, bias=False)
        self.source = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, outputs)))
        self.target = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, outputs)))
        nn.init.xavier_uniform_(self.linear.weight)

    def values_and_scores(self, x: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        h = self.linear(x).view(-1, self.heads, self.outputs)
        from_source = (h * self.source).sum(-1).index_select(0, source)
        from_target = (h * self.target).sum(-1).index_select(0, target)
        return h.index_select(0, source), functional.leaky_relu(from_source + from_target, 0.2)


class GATv2Conv(_Attention):
    r"""Graph attention, second version: :math:`\mathbf h'_v = \boldsymbol\beta + \sum_u \alpha_{uv} \boldsymbol\Omega_1 \mathbf h_u`.

    The scores are :math:`\mathbf a^\top \mathrm{LeakyReLU}(\boldsymbol\Omega_1 \mathbf h_u + \boldsymbol\Omega_2 \mathbf h_v)`:
    Brody, Alon and Yahav, *How Attentive are Graph Attention Networks?*, 2022, equation 7. The rest is as in
    :class:`GATConv`. Both linear maps have biases, as in PyTorch Geometric.

    Args:
        inputs: features of a node.
        outputs: features of a node after the layer, for each head.
        heads: number of heads.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> ``(nodes, heads * outputs)``.

    Raises:
        TypeError, ValueError: as :class:`GATConv`.
    """

    def __init__(self, inputs: int, outputs: int, heads: int = 1):
        super().__init__(inputs, outputs, heads)
        self.source = nn.Linear(inputs, heads * outputs)
        self.target = nn.Linear(inputs, heads * outputs)
        self.score = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, outputs)))

    def values_and_scores(self, x: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        values = self.source(x).index_select(0, source).view(-1, self.heads, self.outputs)
        asked = self.target(x).index_select(0, target).view(-1, self.heads, self.outputs)
        return values, (functional.leaky_relu(values + asked, 0.2) * self.score).sum(-1)
