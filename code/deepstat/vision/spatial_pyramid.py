"""Spatial pyramid pooling: a feature vector of fixed length from a map, or a region of it, of any size.

Chapter: vision/detection.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.vision.roi_pooling import roi_pool


def spatial_pyramid(
    features: Float[Tensor, "n c h w"],
    rois: Float[Tensor, "r 4"],
    image: Int64[Tensor, " r"],
    levels: Sequence[int],
    stride: int | float = 1,
) -> Float[Tensor, "r features"]:
    r"""Each region max-pooled on several grids, from coarse to fine, in one vector.

    He, Zhang, Ren and Sun, *Spatial Pyramid Pooling in Deep Convolutional Networks*, 2014, section 2.2. A level
    :math:`m` is RoI pooling with :math:`m \times m` bins, rounded as in their appendix.

    Args:
        features: maps ``(n, c, h, w)``.
        rois: boxes ``(r, 4)`` in pixels of the image.
        image: which of the ``n`` maps each region is on, ``(r,)``.
        levels: bins along each side, one number a level.
        stride: pixels of the image in a cell of the map.

    Returns:
        ``(r, c * sum(m**2 for m in levels))``.

    Raises:
        ValueError: if there is no level, and as :func:`deepstat.vision.roi_pooling.roi_pool`.
    """
    if len(levels) == 0:
        raise ValueError("levels must name at least one grid, got none")
    return torch.cat([roi_pool(features, rois, image, m, stride).flatten(1) for m in levels], dim=1)


class SpatialPyramidPooling(nn.Module):
    r"""The layer that lets a network with dense layers take images of any size: a pyramid over the whole map.

    Args:
        levels: bins along each side, one number a level.

    Shapes: ``(n, c, h, w) -> (n, c * sum(m**2 for m in levels))`` for any positive ``h`` and ``w``.

    Raises:
        ValueError: if there is no level or one is below 1.
    """

    def __init__(self, levels: Sequence[int] = (1, 2, 4)):
        super().__init__()
        if len(levels) == 0 or min(levels) < 1:
            raise ValueError(f"levels must be at least one number from 1 on, got {tuple(levels)}")
        self.levels = tuple(levels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        n, _, h, w = x.shape
        whole = torch.tensor([0, 0, w, h], device=x.device).float().expand(n, 4)
        return spatial_pyramid(x, whole, torch.arange(n, device=x.device), self.levels)
