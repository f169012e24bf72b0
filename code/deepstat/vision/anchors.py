"""Anchors: a fixed grid of reference boxes over an image, and the truth that each of them is to predict.

Chapters: vision/detection, vision/single_shot_detection.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from deepstat.vision import boxes

BACKGROUND, IGNORED = -1, -2


def grid(
    height: int,
    width: int,
    stride: int | float,
    sizes: Sequence[int | float],
    ratios: Sequence[int | float],
    device: torch.device | str | None = None,
) -> Float[Tensor, "n 4"]:
    r"""Anchors of every size and ratio around the centre of every cell of a feature map.

    Ren, He, Girshick and Sun, *Faster R-CNN*, 2015, section 3.1.1. An anchor of size :math:`s` and ratio
    :math:`r = w/h` has the width :math:`s\sqrt r` and the height :math:`s / \sqrt r`, hence the area :math:`s^2`. The
    cell in row :math:`i`, column :math:`j` has its centre at :math:`((j + \tfrac12) t, (i + \tfrac12) t)`, where
    :math:`t` is the stride.

    Args:
        height: rows of the feature map.
        width: its columns.
        stride: pixels of the image between neighbouring cells.
        sizes: square roots of the anchors' areas, in pixels.
        ratios: width divided by height.
        device: where to make them.

    Returns:
        Boxes ``(height * width * k, 4)`` with ``k = len(sizes) * len(ratios)``: rows of the map first, then columns,
        sizes, ratios. They may reach beyond the image.

    Raises:
        ValueError: if there is no cell, size or ratio, or a length is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    for name, values in (("stride", [stride]), ("sizes", sizes), ("ratios", ratios)):
        if len(values) == 0 or not all(0 < value < math.inf for value in values):
            raise ValueError(f"{name} must be positive and finite, at least one, got {values}")
    half = [(s * r**0.5 / 2, s / r**0.5 / 2) for s in sizes for r in ratios]
    shape = torch.tensor([(-w, -h, w, h) for w, h in half], device=device)  # (k, 4)
    x = (torch.arange(width, device=device) + 0.5) * stride
    y = (torch.arange(height, device=device) + 0.5) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")  # (height, width)
    centre = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (centre + shape).reshape(-1, 4)


def match(
    anchors: Float[Tensor, "n 4"], truth: Float[Tensor, "m 4"], low: int | float, high: int | float
) -> Int64[Tensor, " n"]:
    r"""The true box that each anchor is responsible for.

    An anchor belongs to the truth that it overlaps most, if their intersection over union (IoU) is ``high`` or more;
    it is background if no IoU reaches ``low``, and ignored in between. Then every truth is given an anchor of its own,
    whatever the IoU, best pairs first, so that no object is without a teacher: the bipartite matching of Liu et al.,
    *SSD*, 2016, section 2.2. Ren et al., 2015, force the best anchor of a truth too, but not one for each truth.

    Args:
        anchors: boxes ``(n, 4)``.
        truth: boxes ``(m, 4)``; ``m`` may be zero.
        low: below this IoU an anchor is background, in [0, 1].
        high: from this IoU on it is matched, in [low, 1].

    Returns:
        ``(n,)``: the index of the truth, ``BACKGROUND`` (-1) or ``IGNORED`` (-2). A truth that overlaps no free anchor
        stays without.

    Raises:
        ValueError: if the thresholds are out of range or out of order.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"low and high must satisfy 0 <= low <= high <= 1, got {low} and {high}")
    if len(truth) == 0 or len(anchors) == 0:
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    overlap = boxes.iou(anchors, truth)  # (n, m)
    best, index = overlap.max(dim=1)
    index[best < high] = IGNORED
    index[best < low] = BACKGROUND
    for _ in range(min(overlap.shape)):
        pair = int(overlap.argmax())
        anchor, owner = divmod(pair, overlap.shape[1])
        if overlap[anchor, owner] <= 0:
            break
        index[anchor] = owner
        overlap[anchor] = overlap[:, owner] = -1
    return index
