"""Pooling that keeps the nodes with the highest scores and the edges between them.

How many nodes and edges are left depends on the data. ``torch.compile`` therefore breaks the graph here; with
``fullgraph=True`` it refuses.

Chapter: graphs/sampling_and_pooling.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.graphs.message_passing import check_edges, check_features, check_sizes, degree
from deepstat.graphs.readout import check_batch


class Pooled(NamedTuple):
    """A batch of smaller graphs.

    Args:
        x: features of the kept nodes, shape ``(kept, features)``.
        edge_index: edges between them, with their new numbers, shape ``(2, left)``.
        batch: the graph of each, shape ``(kept,)``.
        kept: their old numbers, by graph, then from the highest score down, shape ``(kept,)``.
    """

    x: Float[Tensor, "kept features"]
    edge_index: Int64[Tensor, "2 left"]
    batch: Int64[Tensor, " kept"]
    kept: Int64[Tensor, " kept"]


def check_ratio(ratio: float) -> None:
    """Refuse a share that is not above 0 and at most 1.

    Raises:
        ValueError: if it is not.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, got {ratio}")


def top(
    score: Float[Tensor, " nodes"], batch: Int64[Tensor, " nodes"], graphs: int, ratio: float
) -> Int64[Tensor, " kept"]:
    r"""The :math:`\lceil r n_G \rceil` nodes of each graph with the highest scores.

    Among equal scores those with the smaller numbers, so that with ties the result depends on the numbering.

    Args:
        score: of each node, shape ``(nodes,)``.
        batch: the graph of each node, shape ``(nodes,)``, in any order.
        graphs: number of graphs.
        ratio: :math:`r`, above 0 and at most 1.

    Returns:
        The nodes, by graph, then from the highest score down.

    Raises:
        TypeError, ValueError: as :func:`~deepstat.graphs.readout.check_batch`; if ``ratio`` is out of range.
    """
    check_ratio(ratio)
    check_batch(batch, len(score), graphs)
    order = score.argsort(descending=True, stable=True)
    order = order[batch[order].argsort(stable=True)]
    size = degree(batch, graphs, torch.float64)
    share = (ratio * size - 1e-9).ceil()  # in binary numbers 0.07 * 100 is a little more than 7
    place = torch.arange(len(order), device=order.device) - (size.cumsum(0) - size)[batch[order]]
    return order[place < share[batch[order]]]


def induced(edge_index: Int64[Tensor, "2 edges"], kept: Int64[Tensor, " kept"], nodes: int) -> Int64[Tensor, "2 left"]:
    """The edges between kept nodes, which are renumbered in the order of ``kept``. The edges are not checked."""
    new = torch.full((nodes,), -1, device=kept.device)
    new[kept] = torch.arange(len(kept), device=kept.device)
    edges = new[edge_index]
    return edges[:, (edges >= 0).all(0)]


class TopKPooling(nn.Module):
    r"""Keep a share of the nodes by a learned projection, and scale what is kept by the score.

    Gao and Ji, *Graph U-Nets*, 2019, and Cangea, Veličković, Jovanović, Kipf and Liò, *Towards Sparse
    Hierarchical Graph Classifiers*, 2018: with a direction :math:`\mathbf p`,

    .. math::
        y_v = \mathbf p^\top \mathbf h_v / \lVert \mathbf p \rVert, \quad
        \mathbf h'_v = \tanh(y_v)\, \mathbf h_v \text{ for the } \lceil r n_G \rceil \text{ largest } y_v, \quad
        \mathbf A' = \mathbf A_{\mathrm{kept}, \mathrm{kept}} .

    Without the gate :math:`\mathbf p` would have no gradient. It is the tanh of the second paper and of PyTorch
    Geometric; the first has the logistic function.

    Args:
        inputs: features of a node.
        ratio: share of the nodes of each graph that is kept, above 0 and at most 1.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)``, ``batch (nodes,)``, ``graphs`` -> :class:`Pooled`.

    Raises:
        TypeError, ValueError: if ``inputs`` is not a positive integer, ``ratio`` is out of range, ``x`` has another
            shape or is not a floating point tensor, ``edge_index`` does not hold edges between its rows, or
            ``batch`` does not name one of ``graphs`` graphs for each.
    """

    def __init__(self, inputs: int, ratio: float = 0.5):
        super().__init__()
        check_sizes(inputs=inputs)
        check_ratio(ratio)
        self.inputs, self.ratio = inputs, ratio
        self.weight = nn.Parameter(torch.empty(inputs).uniform_(-1, 1) / inputs**0.5)

    def forward(
        self,
        x: Float[Tensor, "nodes inputs"],
        edge_index: Int64[Tensor, "2 edges"],
        batch: Int64[Tensor, " nodes"],
        graphs: int,
    ) -> Pooled:
        check_features(x, self.inputs)
        check_edges(edge_index, len(x))
        score = x @ (self.weight / self.weight.norm())
        kept = top(score, batch, graphs, self.ratio)
        gated = score[kept].tanh()[:, None] * x[kept]
        return Pooled(gated, induced(edge_index, kept, len(x)), batch[kept], kept)
