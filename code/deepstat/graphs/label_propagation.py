"""Classification of nodes without a network: harmonic functions of a few labels, two groups without any label.

Chapter: graphs/message_passing.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import eigsh
from torch import Tensor

from deepstat.graphs.message_passing import check_edges, degree, reduce_at


def harmonic(
    edge_index: Int64[Tensor, "2 edges"],
    nodes: int,
    labelled: Int64[Tensor, " labelled"],
    labels: Int64[Tensor, " labelled"],
    classes: int,
    tolerance: float = 1e-10,
) -> Float[Tensor, "nodes classes"]:
    r"""The harmonic function that equals the labels where there are any.

    Zhu, Ghahramani and Lafferty, *Semi-Supervised Learning Using Gaussian Fields and Harmonic Functions*, 2003,
    equation 5: :math:`\mathbf F_U = (\mathbf D_{UU} - \mathbf A_{UU})^{-1} \mathbf A_{UL} \mathbf F_L`, with one column for each
    class. Every unlabelled node has the mean of its neighbours; entry :math:`c` is the probability that a random walk
    from the node meets a label of class :math:`c` first. Solved by conjugate gradients, in float64, at a cost
    proportional to the number of edges a step.

    Args:
        edge_index: source and target of each edge, shape ``(2, edges)``; an undirected edge is there twice.
        nodes: number of nodes.
        labelled: the nodes with a label, each once.
        labels: their classes, ``0, ..., classes - 1``.
        classes: number of classes.
        tolerance: norm of the residual at which to stop, as a share of that of the right side.

    Returns:
        Shape ``(nodes, classes)``, float64; rows add up to one. Nodes that no path joins to a label get the shares
        of the classes among the labels.

    Raises:
        TypeError, ValueError: as :func:`check_edges`; if an edge is there in one direction only, no node is
            labelled, one is named twice, or a label is not a class.
    """
    check_edges(edge_index, nodes)
    _check_labels(nodes, labelled, labels, classes)
    _check_undirected(edge_index, nodes)
    source, target = edge_index
    fixed = torch.zeros(nodes, classes, dtype=torch.float64, device=edge_index.device)
    fixed[labelled, labels] = 1
    free = torch.ones(nodes, 1, dtype=torch.float64, device=edge_index.device)
    free[labelled] = 0
    d = degree(target, nodes, torch.float64)[:, None]

    def neighbours(f: Tensor) -> Tensor:
        return reduce_at(f.index_select(0, source), target, nodes)

    f = torch.zeros_like(fixed)  # conjugate gradients for each column, preconditioned by the degrees
    residual = free * neighbours(fixed)
    enough = tolerance * residual.norm(dim=0)
    direction, old = torch.zeros_like(f), torch.ones(classes, dtype=f.dtype, device=f.device)
    for _ in range(10 * nodes + 10):
        if (residual.norm(dim=0) <= enough).all():
            break
        scaled = residual / d.clamp(min=1)
        new = (residual * scaled).sum(0)
        direction = scaled + new / old * direction
        image = free * (d * direction - neighbours(direction))
        step = new / (direction * image).sum(0).clamp(min=torch.finfo(f.dtype).tiny)
        f, residual, old = f + step * direction, residual - step * image, new.clamp(min=torch.finfo(f.dtype).tiny)
    f = f + fixed
    total = f.sum(1, keepdim=True)
    shares = fixed.sum(0) / len(labelled)
    return torch.where(total > 0.5, f / total.clamp(min=0.5), shares)


def match_masses(
    f: Float[Tensor, "nodes classes"], labelled: Int64[Tensor, " labelled"], prior: Float[Tensor, " classes"]
) -> Float[Tensor, "nodes classes"]:
    r"""Scale each column so that the classes have their prior shares of the unlabelled mass.

    Zhu, Ghahramani and Lafferty, 2003, equation 9, class mass normalization:
    :math:`F_{vc} \mapsto \pi_c F_{vc} / \sum_{u \in U} F_{uc}`. Few labels can leave almost all nodes nearer to one class;
    this moves the threshold.

    Args:
        f: what :func:`harmonic` returned, shape ``(nodes, classes)``.
        labelled: the nodes with a label.
        prior: expected share of each class, shape ``(classes,)``.

    Returns:
        Shape ``(nodes, classes)``; the labelled rows are as they were. The largest entry of a row names its class.

    Raises:
        ValueError: if ``prior`` has another shape or an entry below zero.
    """
    if prior.shape != f.shape[1:] or (prior < 0).any():
        raise ValueError(f"prior must be {f.shape[1]} shares that are not negative, got {prior.tolist()}")
    free = torch.ones(len(f), dtype=torch.bool, device=f.device)
    free[labelled] = False
    mass = f[free].sum(0).clamp(min=torch.finfo(f.dtype).tiny)
    return torch.where(free[:, None], f * (prior.to(f) / mass), f)


def bethe_hessian(edge_index: Int64[Tensor, "2 edges"], nodes: int) -> Int64[Tensor, " nodes"]:
    r"""Two groups of nodes from the edges alone: the signs of an eigenvector of the Bethe Hessian.

    Saade, Krzakala and Zdeborová, *Spectral Clustering of Graphs with the Bethe Hessian*, 2014: the second smallest
    eigenvalue of :math:`(r^2 - 1)\mathbf I - r\mathbf A + \mathbf D`, with :math:`r^2 = \sum_v d_v^2 / \sum_v d_v - 1`.
    Sparse, on the CPU, in float64.

    Args:
        edge_index: source and target of each edge, shape ``(2, edges)``; an undirected edge is there twice.
        nodes: number of nodes, at least 3.

    Returns:
        Shape ``(nodes,)``, on the CPU: 0 or 1. Which group is called 1 means nothing.

    Raises:
        TypeError, ValueError: as :func:`check_edges`; if an edge is there in one direction only, there are fewer than
            3 nodes, or no node has two neighbours.
    """
    check_edges(edge_index, nodes)
    _check_undirected(edge_index, nodes)
    if nodes < 3:
        raise ValueError(f"nodes must be at least 3, got {nodes}")
    source, target = edge_index.cpu().numpy()
    a = coo_array((np.ones(len(source)), (target, source)), shape=(nodes, nodes)).tocsr()
    d = a.sum(1)
    if d.max() < 2:
        raise ValueError("edge_index must give some node two neighbours, got at most one each")
    r = ((d**2).sum() / d.sum() - 1) ** 0.5
    start = np.random.default_rng(0).normal(size=nodes)  # the same each time
    vectors = eigsh(diags_array(r**2 - 1 + d) - r * a, k=2, which="SA", v0=start)[1]
    return torch.from_numpy(vectors[:, 1] > 0).long()


def _check_undirected(edge_index: Tensor, nodes: int) -> None:
    source, target = edge_index
    if not torch.equal((source * nodes + target).sort().values, (target * nodes + source).sort().values):
        raise ValueError("edge_index must hold every edge in both directions")


def _check_labels(nodes: int, labelled: Tensor, labels: Tensor, classes: int) -> None:
    if not len(labelled):
        raise ValueError("labelled must name at least one node, got none")
    if labels.shape != labelled.shape:
        raise ValueError(f"labels must have shape ({len(labelled)},), one for each labelled node, got {tuple(labels.shape)}")
    for name, index, size in (("labelled", labelled, nodes), ("labels", labels, classes)):
        if index.min() < 0 or index.max() >= size:
            raise ValueError(f"{name} must be between 0 and {size - 1}, got {index.min().item()} to {index.max().item()}")
    if len(labelled.unique()) < len(labelled):
        raise ValueError("labelled must name each node once, got one twice")
