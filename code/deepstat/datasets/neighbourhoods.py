"""Simulated graphs in which a node's class is a known function of its neighbours' values.

Chapter: graphs/sets.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


class Neighbourhoods(NamedTuple):
    """A graph with features and one class for each node.

    Args:
        x: three standard normal features and the node's kind, 1 or -1, or 0 where there is one kind only; shape
            ``(nodes, 4)``.
        edge_index: source and target of each edge, both ways, shape ``(2, edges)``.
        y: class 0 or 1, shape ``(nodes, 1)``.
    """

    x: Float32[Tensor, "nodes 4"]
    edge_index: Int64[Tensor, "2 edges"]
    y: Float32[Tensor, "nodes 1"]


def neighbourhoods(nodes: int, mixed: bool, generator: torch.Generator, degree: float = 6.0) -> Neighbourhoods:
    r"""A graph with independent edges, each there with probability ``degree / nodes``.

    With one kind of node, :math:`y_v = 1` if the variance of :math:`x_{u1}` over the neighbours :math:`u` of :math:`v`
    (divided by their number) exceeds 0.75. With two kinds, drawn with equal chances, :math:`y_v = 1` if
    :math:`\sum_u k_u\,\lvert x_{u1}\rvert > 0`, where :math:`k_u = \pm 1` is the kind: the activators among the
    neighbours outweigh the inhibitors. A node without neighbours has class 0.

    Args:
        nodes: how many, more than ``degree``.
        mixed: whether there are two kinds.
        generator: source of randomness, on the CPU.
        degree: expected number of neighbours (nearly: a node is not its own), positive.

    Raises:
        ValueError: if ``degree`` is not positive or ``nodes`` not more than that.
    """
    if not degree > 0:
        raise ValueError(f"degree must be positive, got {degree}")
    if nodes <= degree:
        raise ValueError(f"nodes must be more than degree = {degree}, got {nodes}")
    x = torch.randn(nodes, 4, generator=generator)
    kind = 2.0 * (torch.rand(nodes, generator=generator) < 0.5) - 1
    x[:, 3] = kind if mixed else 0.0
    linked = torch.rand(nodes, nodes, generator=generator) < degree / nodes
    edges = linked.triu(1).nonzero().T
    source, target = edges = torch.cat([edges, edges.flip(0)], dim=1)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(nodes).index_add(0, target, values[source])

    value = x[:, 0]
    if mixed:
        score = total(kind * value.abs())
    else:
        count = total(torch.ones(nodes)).clamp(min=1)
        score = total(value**2) / count - (total(value) / count) ** 2 - 0.75
    return Neighbourhoods(x, edges, (score > 0).float().unsqueeze(1))
