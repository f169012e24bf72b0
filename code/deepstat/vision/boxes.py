"""Boxes: area, overlap, coding relative to an anchor, clipping, and non-maximum suppression.

A box is ``x1, y1, x2, y2`` in pixels, with real numbers and continuous edges: the image of width 64 reaches from 0 to
64, and a box of one pixel has area 1. A box with ``x2 < x1`` or ``y2 < y1`` is empty, with area 0.

Chapters: vision/detection, vision/single_shot_detection.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

LARGEST_LOG_RATIO = math.log(1000 / 16)  # decode enlarges an anchor at most 62.5 times
_BLOCK = 256  # boxes that nms compares at once


def area(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Width times height of each box, in square pixels."""
    _check_boxes("boxes", boxes)
    x1, y1, x2, y2 = _wide(boxes).unbind(-1)
    return ((x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)).to(boxes.dtype)


def iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    r"""Intersection over union :math:`|A \cap B| / |A \cup B|` of each box of ``a`` with each box of ``b``.

    Args:
        a: boxes, shape ``(n, 4)``.
        b: boxes, shape ``(m, 4)``.

    Returns:
        Numbers in [0, 1], shape ``(n, m)``; 0 if both boxes are empty.

    Raises:
        TypeError: if the boxes are not floating point numbers.
        ValueError: if a shape is another.
    """
    _check_matrix("a", a)
    _check_matrix("b", b)
    intersection, union = _pairs(a, b)
    return (intersection / _positive(union)).to(a.dtype)


def giou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    r"""Generalized IoU :math:`\mathrm{IoU} - |C \setminus (A \cup B)| / |C|`, with :math:`C` the smallest box around both.

    Rezatofighi et al., *Generalized Intersection over Union*, 2019, algorithm 1. It lies in (-1, 1], is at most the
    IoU, and its gradient does not vanish for boxes that do not meet.

    Args:
        a: boxes, shape ``(n, 4)``.
        b: boxes, shape ``(m, 4)``.

    Returns:
        Shape ``(n, m)``.

    Raises:
        TypeError, ValueError: as :func:`iou`.
    """
    _check_matrix("a", a)
    _check_matrix("b", b)
    intersection, union = _pairs(a, b)
    low = torch.minimum(a[:, None, :2], b[:, :2])  # (n, m, 2): corners of the box around both
    high = torch.maximum(a[:, None, 2:], b[:, 2:])
    hull = area(_wide(torch.cat([low, high], dim=-1)))
    return (intersection / _positive(union) - (hull - union) / _positive(hull)).to(a.dtype)


def encode(boxes: Float[Tensor, "*n 4"], anchors: Float[Tensor, "*m 4"]) -> Float[Tensor, "*k 4"]:
    r"""R-CNN's code of a box relative to an anchor.

    Girshick et al., *Rich Feature Hierarchies*, 2014, appendix C: with centres :math:`(x, y)` and sizes :math:`w, h`,
    :math:`t_x = (x - x_a)/w_a`, :math:`t_y = (y - y_a)/h_a`, :math:`t_w = \log(w/w_a)`, :math:`t_h = \log(h/h_a)`.

    Args:
        boxes: boxes of positive width and height, last axis 4.
        anchors: one for each box (shapes are broadcast), of positive width and height.

    Returns:
        Codes :math:`(t_x, t_y, t_w, t_h)`.

    Raises:
        TypeError, ValueError: if an argument is not of floating point numbers with last axis 4.
    """
    _check_boxes("boxes", boxes)
    _check_boxes("anchors", anchors)
    centre, size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    return torch.cat([(centre - anchor_centre) / anchor_size, (size / anchor_size).log()], dim=-1)


def decode(codes: Float[Tensor, "*n 4"], anchors: Float[Tensor, "*m 4"]) -> Float[Tensor, "*k 4"]:
    """The boxes that have these codes: the inverse of :func:`encode`.

    The logarithms of the sizes are cut off at :data:`LARGEST_LOG_RATIO`, which the paper does not do, so that an
    untrained network gives no infinite box.

    Args:
        codes: as :func:`encode` returns them, last axis 4.
        anchors: one for each code (shapes are broadcast).

    Returns:
        Boxes ``x1, y1, x2, y2``.

    Raises:
        TypeError, ValueError: as :func:`encode`.
    """
    _check_boxes("codes", codes)
    _check_boxes("anchors", anchors)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    centre = anchor_centre + codes[..., :2] * anchor_size
    half = anchor_size * codes[..., 2:].clamp(max=LARGEST_LOG_RATIO).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Float[Tensor, "*n 4"], height: float | int, width: float | int) -> Float[Tensor, "*n 4"]:
    """The part of each box inside an image of this height and width, in pixels."""
    _check_boxes("boxes", boxes)
    x1, y1, x2, y2 = boxes.unbind(-1)
    x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
    y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    return torch.stack([x1, y1, x2, y2], dim=-1)


def nms(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float) -> Int64[Tensor, " k"]:
    """Greedy non-maximum suppression: keep the best box, drop all that overlap it, and go on with the rest.

    The boxes come in blocks, best first. A block is compared with the boxes kept before, all at once, and only within
    the block box after box, so that no matrix of all pairs is stored.

    Args:
        boxes: boxes of one class in one image, shape ``(n, 4)``.
        scores: finite, shape ``(n,)``; of equal scores the earlier box counts as better.
        threshold: a box is dropped if its IoU with a kept box is *above* this number from [0, 1].

    Returns:
        The indices of the kept boxes, best first.

    Raises:
        TypeError: if boxes or scores are not floating point numbers.
        ValueError: if a shape is another, a number is not finite, or ``threshold`` is not in [0, 1].
    """
    _check_matrix("boxes", boxes)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must have shape ({len(boxes)},), one a box, got {tuple(scores.shape)}")
    if not (scores.isfinite().all() and boxes.isfinite().all()):
        raise ValueError("boxes and scores must be finite, got infinite numbers or NaN")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for block in order.split(_BLOCK):
        block = block[(iou(boxes[block], boxes[kept]) <= threshold).all(dim=1)]
        compatible = (iou(boxes[block], boxes[block]) <= threshold).cpu().numpy()
        alive = np.ones(len(block), dtype=bool)
        for i in range(len(block)):
            if alive[i]:
                alive[i + 1 :] &= compatible[i, i + 1 :]
        kept = torch.cat([kept, block[torch.from_numpy(alive).to(block.device)]])
    return kept


def batched_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int64[Tensor, " n"], threshold: float
) -> Int64[Tensor, " k"]:
    """:func:`nms` within each class: boxes of different classes do not suppress each other.

    Args:
        boxes: boxes of one image, shape ``(n, 4)``.
        scores: finite, shape ``(n,)``.
        labels: the class of each box, shape ``(n,)``.
        threshold: as in :func:`nms`.

    Returns:
        The indices of the kept boxes of all classes, best first.

    Raises:
        TypeError, ValueError: as :func:`nms`, and if ``labels`` has another shape.
    """
    if labels.shape != scores.shape:
        raise ValueError(f"labels must have shape {tuple(scores.shape)}, one a box, got {tuple(labels.shape)}")
    kept = [nms(boxes[:0], scores[:0], threshold)]
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        kept.append(rows[nms(boxes[rows], scores[rows], threshold)])
    indices = torch.cat(kept).sort().values
    return indices[scores[indices].argsort(descending=True, stable=True)]


def _pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union of each pair."""
    a, b = _wide(a), _wide(b)
    ax1, ay1, ax2, ay2 = a[:, :, None].unbind(1)  # (n, 1) each
    bx1, by1, bx2, by2 = b.T  # (m,) each
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    intersection = width * height  # (n, m)
    return intersection, area(a)[:, None] + area(b) - intersection


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: in half precision the areas of large boxes overflow."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def _check_boxes(name: str, boxes: Tensor) -> None:
    if not boxes.is_floating_point():
        raise TypeError(f"{name} must be floating point numbers, got {boxes.dtype}")
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must have a last axis of 4, x1, y1, x2, y2, got shape {tuple(boxes.shape)}")


def _check_matrix(name: str, boxes: Tensor) -> None:
    _check_boxes(name, boxes)
    if boxes.ndim != 2:
        raise ValueError(f"{name} must have shape (n, 4), got {tuple(boxes.shape)}")
