r"""RoI pooling and RoI align: features of fixed size from regions of interest of any size.

A region is a box ``x1, y1, x2, y2`` in pixels of the image. Dividing by the stride of the feature map gives it in cells;
cell :math:`j` covers :math:`[j, j + 1]` and its value stands at :math:`j + \tfrac12`.

Chapter: vision/detection.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def roi_pool(
    features: Float[Tensor, "n c h w"], rois: Float[Tensor, "r 4"], image: Int64[Tensor, " r"], size: int, stride: int | float = 1
) -> Float[Tensor, "r c size size"]:
    r"""The largest value in each of ``size`` × ``size`` bins of each region.

    Girshick, *Fast R-CNN*, 2015, section 2.1. Corners are rounded to whole cells, a region has at least one cell, and
    bin :math:`i` of a side with cells :math:`a, \dots, b - 1` has the cells from
    :math:`a + \lfloor i (b - a)/m \rfloor` to :math:`a + \lceil (i + 1)(b - a)/m \rceil - 1`, where :math:`m` is the
    size. Bins overlap where the sides are not multiples. Girshick's code counts the last pixel into the box; here boxes
    have continuous corners.

    Args:
        features: maps ``(n, c, h, w)``.
        rois: boxes ``(r, 4)`` in pixels of the image. What lies outside of the map is cut off.
        image: which of the ``n`` maps each region is on, ``(r,)``.
        size: bins along each side, :math:`m`.
        stride: pixels of the image in a cell of the map.

    Returns:
        ``(r, c, size, size)``. The gradient goes to one largest cell of each bin; the boxes get none.

    Raises:
        ValueError: if a shape, an index, ``size`` or ``stride`` is not as above.
    """
    _check(features, rois, image, size, stride)
    x1, y1, x2, y2 = (rois / stride).round().long().unbind(1)
    _, c, h, w = features.shape
    rows = _bins(y1, y2, size, h) + h * image[:, None, None]  # (r, size, k), the rows of all maps counted through
    columns = _bins(x1, x2, size, w)
    cells = w * rows[:, :, None, :, None] + columns[:, None, :, None, :]  # (r, size, size, k, l)
    maps = features.permute(0, 2, 3, 1).reshape(-1, c)  # one row for each cell
    return maps[cells.flatten(3)].max(dim=3).values.permute(0, 3, 1, 2)


def roi_align(
    features: Float[Tensor, "n c h w"],
    rois: Float[Tensor, "r 4"],
    image: Int64[Tensor, " r"],
    size: int,
    stride: int | float = 1,
    samples: int = 2,
) -> Float[Tensor, "r c size size"]:
    r"""The mean over each bin of the map interpolated at ``samples`` × ``samples`` points, without rounding.

    He, Gkioxari, Dollár and Girshick, *Mask R-CNN*, 2017, section 3. Bilinear interpolation is a product of hat
    functions :math:`\max(0, 1 - |u - (j + \tfrac12)|)` of the two coordinates, so its means over a grid of points are
    :math:`\mathbf A \mathbf F \mathbf B^\top` with one matrix for the rows and one for the columns. It costs
    :math:`O(hw)` for each region, which suits small maps; libraries touch four cells for each point instead.

    Args:
        features: maps ``(n, c, h, w)``.
        rois: boxes ``(r, 4)`` in pixels of the image. Points beyond the centres of the outermost cells get their value.
        image: which of the ``n`` maps each region is on, ``(r,)``.
        size: bins along each side.
        stride: pixels of the image in a cell of the map.
        samples: points along each side of a bin.

    Returns:
        ``(r, c, size, size)``, differentiable in features and boxes.

    Raises:
        ValueError: if a shape, an index, ``size``, ``stride`` or ``samples`` is not as above.
    """
    _check(features, rois, image, size, stride)
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    x1, y1, x2, y2 = (rois / stride).unbind(1)
    rows = _hats(y1, y2, size, samples, features.shape[2]).to(features.dtype)  # (r, size, h)
    columns = _hats(x1, x2, size, samples, features.shape[3]).to(features.dtype)  # (r, size, w)
    return torch.einsum("rih,rchw,rjw->rcij", rows, features[image], columns)


def warp(
    images: Float[Tensor, "n c h w"], rois: Float[Tensor, "r 4"], image: Int64[Tensor, " r"], size: int, context: int = 0
) -> Float[Tensor, "r c size size"]:
    """Regions of images, each resized to ``size`` × ``size`` pixels whatever its aspect ratio.

    Girshick et al., *Rich Feature Hierarchies*, 2014, section 2.1: the box is enlarged first, so that the result has
    ``context`` pixels around it on every side (16 of 227 in the paper, which cuts off at the image's border; here the
    border is repeated).

    Args:
        images: ``(n, c, h, w)``.
        rois: boxes ``(r, 4)`` in pixels.
        image: which of the ``n`` images each region is of, ``(r,)``.
        size: pixels along each side of the result.
        context: how many of them, on every side, show the surroundings; less than half of ``size``.

    Returns:
        ``(r, c, size, size)``, by bilinear interpolation at the centre of each pixel.

    Raises:
        ValueError: as :func:`roi_align`, and if ``context`` leaves no pixel.
    """
    if not 0 <= 2 * context < size:
        raise ValueError(f"context must be at least 0 and less than half of size = {size}, got {context}")
    centre = (rois[:, :2] + rois[:, 2:]) / 2
    half = (rois[:, 2:] - rois[:, :2]) / 2 * size / (size - 2 * context)
    return roi_align(images, torch.cat([centre - half, centre + half], dim=1), image, size, samples=1)


def _bins(start: Int64[Tensor, " r"], end: Int64[Tensor, " r"], size: int, extent: int) -> Int64[Tensor, "r size k"]:
    """The cells of each bin of each region, out of ``0, ..., extent - 1``; a short bin repeats its last."""
    start = start.clamp(0, extent - 1)[:, None]  # (r, 1)
    length = end[:, None].clamp(max=extent).sub(start).clamp(min=1)
    i = torch.arange(size, device=start.device)
    low = start + i * length // size  # (r, size)
    high = start - (-(i + 1) * length // size)  # rounded up
    cell = torch.arange(-(-extent // size) + 1, device=start.device)  # no bin has more
    return torch.minimum(low[..., None] + cell, high[..., None] - 1)


def _hats(
    start: Float[Tensor, " r"], end: Float[Tensor, " r"], size: int, samples: int, extent: int
) -> Float[Tensor, "r size extent"]:
    """Weights of the cells ``0, ..., extent - 1`` in the mean over the points of each bin."""
    i = torch.arange(size * samples, device=start.device)
    u = start[:, None] + (end - start)[:, None] * (i + 0.5) / (size * samples)
    centre = torch.arange(extent, device=start.device) + 0.5
    hat = (1 - (u.clamp(0.5, extent - 0.5)[..., None] - centre).abs()).clamp(min=0)
    return hat.unflatten(1, (size, samples)).mean(dim=2)


def _check(features: Tensor, rois: Tensor, image: Tensor, size: int, stride: int | float) -> None:
    if features.ndim != 4 or 0 in features.shape[2:]:
        raise ValueError(f"features must have shape (n, c, h, w), not empty, got {tuple(features.shape)}")
    if rois.ndim != 2 or rois.shape[1] != 4:
        raise ValueError(f"rois must have shape (r, 4), got {tuple(rois.shape)}")
    if image.shape != rois.shape[:1]:
        raise ValueError(f"image must have shape ({len(rois)},), one index a region, got {tuple(image.shape)}")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if not stride > 0:
        raise ValueError(f"stride must be positive, got {stride}")
