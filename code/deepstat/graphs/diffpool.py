"""Pooling by a learned soft partition of the nodes, with dense matrices.

Chapter: graphs/sampling_and_pooling.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepstat.graphs.message_passing import check_sizes


class Coarse(NamedTuple):
    r"""A smaller graph, whose nodes are clusters.

    Args:
        x: features of the clusters, shape ``(..., clusters, features)``.
        adjacency: weights of the edges between them and, on the diagonal, inside them, ``(..., clusters, clusters)``.
        assignment: share of each node in each cluster, ``(..., nodes, clusters)``; rows add up to one, or are zero
            where there is no node.
        link_loss: :math:`\lVert \mathbf A - \mathbf S \mathbf S^\top \rVert_F` of each graph, shape ``(...,)``.
        entropy: mean entropy of the rows of the assignment in nats, shape ``(...,)``.
    """

    x: Float[Tensor, "*batch clusters features"]
    adjacency: Float[Tensor, "*batch clusters clusters"]
    assignment: Float[Tensor, "*batch nodes clusters"]
    link_loss: Float[Tensor, "*batch"]
    entropy: Float[Tensor, "*batch"]


def diff_pool(
    z: Float[Tensor, "*batch nodes features"],
    adjacency: Float[Tensor, "*batch nodes nodes"],
    logits: Float[Tensor, "*batch nodes clusters"],
    mask: Bool[Tensor, "*batch nodes"] | None = None,
) -> Coarse:
    r"""Coarsen: :math:`\mathbf X' = \mathbf S^\top \mathbf Z`, :math:`\mathbf A' = \mathbf S^\top \mathbf A \mathbf S`.

    Ying, You, Morris, Ren, Hamilton and Leskovec, *Hierarchical Graph Representation Learning with Differentiable
    Pooling*, 2018, with their two auxiliary losses. :math:`\mathbf S` is the softmax of each
    row of the logits. Takes memory of order :math:`N^2`.

    Args:
        z: features of the nodes, shape ``(..., nodes, features)``.
        adjacency: shape ``(..., nodes, nodes)``, zero where there is no node.
        logits: before the softmax, shape ``(..., nodes, clusters)``.
        mask: true for nodes that are there, shape ``(..., nodes)``; all are there if not given.

    Returns:
        A :class:`Coarse` graph.

    Raises:
        TypeError: if ``mask`` is not boolean.
        ValueError: if the shapes do not fit.
    """
    _check_graph(z, adjacency, mask, "z")
    if logits.shape[:-1] != z.shape[:-1]:
        raise ValueError(f"logits must have shape {(*z.shape[:-1], 'clusters')}, got {tuple(logits.shape)}")
    log_s = logits.log_softmax(-1)
    s = log_s.exp()
    if mask is None:
        mask = torch.ones_like(z[..., 0], dtype=torch.bool)
    s = s.masked_fill(~mask.unsqueeze(-1), 0.0)
    back = s.transpose(-1, -2)
    return Coarse(
        x=back @ z,
        adjacency=back @ adjacency @ s,
        assignment=s,
        link_loss=torch.linalg.matrix_norm(adjacency - s @ back),
        entropy=-(s * log_s).sum((-1, -2)) / mask.sum(-1).clamp(min=1),
    )


def propagate(
    x: Float[Tensor, "*batch nodes features"], adjacency: Float[Tensor, "*batch nodes nodes"]
) -> Float[Tensor, "*batch nodes features"]:
    r"""The product :math:`\tilde{\mathbf D}^{-1/2} (\mathbf A + \mathbf I) \tilde{\mathbf D}^{-1/2} \mathbf X` with a dense matrix.

    The weights of ``adjacency`` must not be negative. Nothing is checked.
    """
    root = (1 + adjacency.sum(-1, keepdim=True)).rsqrt()
    return root * (adjacency @ (root * x) + root * x)


class DiffPool(nn.Module):
    r"""Two graph convolutions, one for the features of the nodes and one for their clusters, then :func:`diff_pool`.

    Ying et al., 2018: :math:`\mathbf Z = a(\hat{\mathbf A} \mathbf X \boldsymbol\Omega_1^\top + \boldsymbol\beta_1)`
    and :math:`\mathbf S = \mathrm{softmax}(\hat{\mathbf A} \mathbf X \boldsymbol\Omega_2^\top + \boldsymbol\beta_2)` with
    :math:`\hat{\mathbf A} = \tilde{\mathbf D}^{-1/2} \tilde{\mathbf A} \tilde{\mathbf D}^{-1/2}`. The paper allows more layers.

    Args:
        inputs: features of a node.
        outputs: features of a cluster.
        clusters: number of clusters, the same for all graphs.

    Shapes: ``x (..., nodes, inputs)``, ``adjacency (..., nodes, nodes)`` without negative weights and zero where there is
    no node, ``mask (..., nodes)`` -> :class:`Coarse`.

    Raises:
        TypeError: if a size is not an integer or the mask is not boolean.
        ValueError: if a size is below one or a shape does not fit.
    """

    def __init__(self, inputs: int, outputs: int, clusters: int):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, clusters=clusters)
        self.embed, self.assign = nn.Linear(inputs, outputs), nn.Linear(inputs, clusters)

    def forward(
        self,
        x: Float[Tensor, "*batch nodes inputs"],
        adjacency: Float[Tensor, "*batch nodes nodes"],
        mask: Bool[Tensor, "*batch nodes"] | None = None,
    ) -> Coarse:
        _check_graph(x, adjacency, mask, "x", self.embed.in_features)
        h = propagate(x, adjacency)
        return diff_pool(torch.relu(self.embed(h)), adjacency, self.assign(h), mask)


def _check_graph(x: Tensor, adjacency: Tensor, mask: Tensor | None, name: str, inputs: int | None = None) -> None:
    if x.ndim < 2 or (inputs is not None and x.shape[-1] != inputs):
        wanted = "features" if inputs is None else inputs
        raise ValueError(f"{name} must have shape (..., nodes, {wanted}), got {tuple(x.shape)}")
    shape = (*x.shape[:-1], x.shape[-2])
    if adjacency.shape != shape:
        raise ValueError(f"adjacency must have shape {shape}, got {tuple(adjacency.shape)}")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean, got {mask.dtype}")
    if mask is not None and mask.shape != x.shape[:-1]:
        raise ValueError(f"mask must have shape {tuple(x.shape[:-1])}, got {tuple(mask.shape)}")
