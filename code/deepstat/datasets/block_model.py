"""A simulated graph with two groups of nodes: the stochastic block model, with features.

Simulated, so that the strength of both sources, edges and features, is known and can be set to either side of what
can be detected at all. Of real networks it keeps groups and sparsity; it has none of their triangles and hubs.

Chapter: graphs/message_passing.
"""

import math

import torch
from jaxtyping import Float32
from torch import Tensor

from deepstat.datasets.graphs import Graph


def block_model(
    nodes: int,
    degree: float,
    graph_signal: float,
    features: int,
    separation: float,
    seed: int,
    axis: Float32[Tensor, " features"] | None = None,
) -> Graph:
    r"""Draw a contextual stochastic block model with two groups of equal size.

    Deshpande, Sen, Montanari and Mossel, *Contextual Stochastic Block Models*, 2018; their groups are drawn, ours are equal.
    Two nodes of one group are joined with probability :math:`a/N`, two of different groups with probability :math:`b/N`, where
    :math:`a = d + \lambda\sqrt d`, :math:`b = d - \lambda\sqrt d`: the expected degree is about :math:`d`, and
    :math:`\lambda^2 = (a - b)^2 / (2(a + b))`. Independently, :math:`\mathbf x_v = \pm s\,\mathbf e + \mathbf z_v` with a unit
    vector :math:`\mathbf e`, the sign of the group and standard normal :math:`\mathbf z_v`; in the paper's letters
    :math:`s^2 = \mu / \gamma` with :math:`\gamma = N / p`. Takes time and memory of order :math:`N^2`.

    Args:
        nodes: :math:`N`, even and at least 2.
        degree: :math:`d`, with :math:`a` at most :math:`N` and :math:`b` not negative.
        graph_signal: :math:`\lambda`; negative if edges prefer different groups.
        features: :math:`p`.
        separation: :math:`s`, half the distance of the groups' means, in standard deviations.
        seed: of the draw.
        axis: :math:`\mathbf e`, shape ``(features,)``, scaled to length one; drawn if not given.

    Returns:
        A :class:`~deepstat.datasets.graphs.Graph` with ``x`` of shape ``(nodes, features)``, every edge in both
        directions, without self-loops, weights one, and ``y`` 0 or 1.

    Raises:
        ValueError: if a number is out of range or ``axis`` has another shape or length zero.
    """
    if nodes < 2 or nodes % 2:
        raise ValueError(f"nodes must be even and at least 2, got {nodes}")
    if features < 1:
        raise ValueError(f"features must be at least 1, got {features}")
    if not degree > 0:
        raise ValueError(f"degree must be positive, got {degree}")
    if not abs(graph_signal) <= math.sqrt(degree):
        limit = math.sqrt(degree)
        raise ValueError(f"graph_signal must be between -{limit:.3g} and {limit:.3g}, the root of degree, got {graph_signal}")
    a, b = (degree + sign * graph_signal * math.sqrt(degree) for sign in (1, -1))
    if max(a, b) > nodes:
        raise ValueError(f"degree must leave probabilities at most 1, got an edge with {max(a, b) / nodes:.3g}")
    if axis is not None and (axis.shape != (features,) or not axis.norm() > 0):
        raise ValueError(f"axis must have shape ({features},) and a positive length, got {tuple(axis.shape)}")
    generator = torch.Generator().manual_seed(seed)
    y = torch.randperm(nodes, generator=generator) % 2
    upper = torch.triu_indices(nodes, nodes, 1)
    probability = torch.where(y[upper[0]] == y[upper[1]], a, b) / nodes
    pairs = upper[:, torch.rand(upper.shape[1], generator=generator) < probability]
    drawn = torch.randn(features, generator=generator)
    axis = drawn if axis is None else axis
    x = torch.randn(nodes, features, generator=generator)
    x += separation * (2 * y - 1)[:, None] * axis / axis.norm()
    return Graph(
        x=x,
        edge_index=torch.cat([pairs, pairs.flip(0)], dim=1),
        edge_weight=torch.ones(2 * pairs.shape[1]),
        y=y,
        classes=("first group", "second group"),
        source="Simulated: Y. Deshpande, S. Sen, A. Montanari and E. Mossel (2018), Contextual Stochastic Block Models.",
        licence="None needed: random numbers.",
    )
