"""How well a segmentation agrees with the truth: overlap, distance of boundaries, and cells found.

Chapter: vision/segmentation.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float64, Integer
from scipy import ndimage
from torch import Tensor

Mask = Bool[Tensor, "*space"]


def dice(a: Mask, b: Mask) -> float:
    r"""Dice coefficient :math:`2|A \cap B| / (|A| + |B|)` of two sets, 1 if both are empty.

    Dice, 1945; the :math:`F_1` score of one set as a prediction of the other.

    Args:
        a, b: masks of one shape.

    Returns:
        A number from 0 (disjoint) to 1 (equal).

    Raises:
        ValueError: if the shapes differ.
    """
    _same_shape(a, b)
    total = a.sum() + b.sum()
    return 1.0 if total == 0 else (2 * (a & b).sum() / total).item()


def jaccard(a: Mask, b: Mask) -> float:
    r"""Jaccard index :math:`|A \cap B| / |A \cup B|` of two sets, the intersection over union; 1 if both are empty.

    Jaccard, 1901. Args, returns, raises: as :func:`dice`.
    """
    _same_shape(a, b)
    union = (a | b).sum()
    return 1.0 if union == 0 else ((a & b).sum() / union).item()


def boundary(mask: Mask) -> Bool[Tensor, "*space"]:
    """Pixels of a set that have a neighbour outside of it, along an axis; beyond the image's border is outside.

    Args:
        mask: in any number of dimensions.

    Returns:
        A mask of the same shape.
    """
    inner = mask.clone()
    for axis in range(mask.ndim):
        outside = torch.zeros_like(mask.narrow(axis, 0, 1))
        size = mask.shape[axis]
        inner &= torch.cat([outside, mask.narrow(axis, 0, size - 1)], axis)
        inner &= torch.cat([mask.narrow(axis, 1, size - 1), outside], axis)
    return mask & ~inner


def boundary_distances(
    a: Mask, b: Mask, spacing: Sequence[float] | None = None
) -> tuple[Float64[Tensor, " m"], Float64[Tensor, " n"]]:
    """Distance of each boundary pixel of ``a`` to the boundary of ``b``, and the other way round.

    Args:
        a, b: masks of one shape, neither empty.
        spacing: size of a pixel along each axis, say in millimetres; 1 if not given.

    Returns:
        Two vectors of distances, in the units of ``spacing``.

    Raises:
        ValueError: if the shapes differ, a mask is empty, or ``spacing`` is not one positive number an axis.
    """
    _same_shape(a, b)
    if not a.any() or not b.any():
        raise ValueError("a and b must not be empty: there is no distance to a boundary that does not exist")
    spacing = [1.0] * a.ndim if spacing is None else list(spacing)
    if len(spacing) != a.ndim or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing must be {a.ndim} positive numbers, got {spacing}")
    scale = torch.tensor(spacing, dtype=torch.float64, device=a.device)
    points = [boundary(mask).nonzero() * scale for mask in (a, b)]
    distances = torch.cdist(*points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.min(1).values, distances.min(0).values


def hausdorff(a: Mask, b: Mask, spacing: Sequence[float] | None = None, quantile: float = 1.0) -> float:
    """Hausdorff distance of two boundaries: the farthest that a point of one is from the other.

    Args:
        a, b, spacing: as of :func:`boundary_distances`.
        quantile: with 0.95 instead of 1, the larger of the two 95 % quantiles, which a single stray pixel cannot move.

    Returns:
        A distance in the units of ``spacing``.

    Raises:
        ValueError: as :func:`boundary_distances`, and if ``quantile`` is not in [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must be in [0, 1], got {quantile}")
    return max(d.quantile(quantile).item() for d in boundary_distances(a, b, spacing))


def average_surface_distance(a: Mask, b: Mask, spacing: Sequence[float] | None = None) -> float:
    """Average symmetric surface distance: the mean over the pixels of both boundaries.

    Args, raises: as of :func:`boundary_distances`.

    Returns:
        A distance in the units of ``spacing``.
    """
    return torch.cat(boundary_distances(a, b, spacing)).mean().item()


def components(mask: Bool[Tensor, "height width"], least: int = 1) -> Integer[Tensor, "height width"]:
    """The connected parts of a set, numbered from 1; pixels are connected along rows and columns.

    Args:
        mask: shape ``(height, width)``.
        least: smaller parts are dropped, in pixels.

    Returns:
        0 outside, else the number of the part.

    Raises:
        ValueError: if ``least`` is below 1.
    """
    if least < 1:
        raise ValueError(f"least must be at least 1, got {least}")
    parts = ndimage.label(mask.cpu().numpy())[0]
    large = np.bincount(parts.ravel()) >= least
    large[0] = False
    numbers = np.cumsum(large) * large
    return torch.from_numpy(numbers[parts]).long().to(mask.device)


def instance_f1(
    found: Integer[Tensor, "height width"], truth: Integer[Tensor, "height width"], threshold: float = 0.5
) -> float:
    r"""F1 score of objects: an object found counts if its Jaccard index with a true one exceeds ``threshold``.

    With a threshold of at least 1/2 no object matches two others, so no assignment has to be chosen.

    Args:
        found, truth: 0 for background, else the object; one shape.
        threshold: from 1/2 to below 1.

    Returns:
        :math:`2 \cdot \text{matches} / (\text{found} + \text{true})`, 1 if there are no objects at all.

    Raises:
        ValueError: if the shapes differ or ``threshold`` is out of range.
    """
    _same_shape(found, truth)
    if not 0.5 <= threshold < 1:
        raise ValueError(f"threshold must be from 0.5 to below 1, got {threshold}")
    f, t = (labels.unique(return_inverse=True) for labels in (found, truth))
    pairs = torch.zeros(len(f[0]), len(t[0]), dtype=torch.float64, device=found.device)
    pairs.view(-1).index_add_(0, (f[1] * len(t[0]) + t[1]).flatten(), torch.ones_like(found, dtype=torch.float64).flatten())
    sizes = pairs.sum(1, keepdim=True) + pairs.sum(0) - pairs  # of the unions
    overlap = (pairs / sizes)[f[0] > 0][:, t[0] > 0]
    total = sum(overlap.shape)
    return 1.0 if total == 0 else 2 * (overlap > threshold).sum().item() / total


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"both must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
