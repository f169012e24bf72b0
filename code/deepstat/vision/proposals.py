"""Region proposals: boxes that may hold an object of any class, and what a detector is to learn from each of them.

Chapter: vision/detection.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy import ndimage
from torch import Tensor

from deepstat.vision import boxes as box

THRESHOLDS = (0.15, 0.25, 0.35, 0.45, 0.6, 0.75)


def connected_components(
    image: Float[Tensor, "1 h w"], thresholds: Sequence[int | float] = THRESHOLDS, gap: int | float = 3, smallest: int | float = 5
) -> Float[Tensor, "n 4"]:
    """Boxes around the connected bright regions of a grey image at several thresholds, and around pairs of them.

    The image is smoothed a little (Gaussian, standard deviation 0.7 pixels). At each threshold, pixels above it that
    meet at an edge or a corner form a component. A pair of components of one threshold whose boxes are at most ``gap``
    apart is proposed as well, for digits that fall into two parts. It stands in for *selective search* (Uijlings et
    al., 2013), which merges the segments of a colour image step by step.

    Args:
        image: grey values in [0, 1], bright objects on a dark ground, ``(1, h, w)``.
        thresholds: grey values, at least one.
        gap: pixels between two boxes that are merged.
        smallest: sides shorter than this are dropped, in pixels.

    Returns:
        Boxes ``(n, 4)`` on the image's device, each once, in the order of their coordinates.

    Raises:
        ValueError: if the image has another shape, or there is no threshold.
    """
    if image.ndim != 3 or image.shape[0] != 1:
        raise ValueError(f"image must have shape (1, h, w), got {tuple(image.shape)}")
    if len(thresholds) == 0:
        raise ValueError("thresholds must be at least one grey value, got none")
    smooth = ndimage.gaussian_filter(image[0].float().cpu().numpy(), 0.7)
    found = [np.zeros((0, 4))]
    for threshold in thresholds:
        labels, _ = ndimage.label(smooth > threshold, structure=np.ones((3, 3)))
        slices = ndimage.find_objects(labels)
        parts = np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices]).reshape(-1, 4)
        parts = parts[(parts[:, 2:] - parts[:, :2]).max(axis=1) >= smallest]  # noise is smaller
        low, high = np.maximum(parts[:, None, :2], parts[:, :2]), np.minimum(parts[:, None, 2:], parts[:, 2:])
        i, j = np.nonzero(np.triu((low - high <= gap).all(axis=2), 1))
        pairs = [np.minimum(parts[i, :2], parts[j, :2]), np.maximum(parts[i, 2:], parts[j, 2:])]
        found += [parts, np.concatenate(pairs, axis=1)]
    unique = np.unique(np.concatenate(found), axis=0)
    sides = unique[:, 2:] - unique[:, :2]
    return torch.tensor(unique[(sides >= smallest).all(axis=1)], dtype=torch.float32, device=image.device)


def recall(
    proposals: Sequence[Float[Tensor, "_ 4"]], truths: Sequence[Float[Tensor, "_ 4"]], threshold: int | float
) -> float:
    """Share of the true boxes that some proposal of their image overlaps with an IoU of at least ``threshold``."""
    best = [box.iou(t, p).amax(dim=1) for p, t in zip(proposals, truths, strict=True) if len(p)]
    return sum(int((b >= threshold).sum()) for b in best) / sum(len(t) for t in truths)


def assign(
    proposals: Float[Tensor, "n 4"],
    truth: Float[Tensor, "m 4"],
    labels: Int64[Tensor, " m"],
    classes: int,
    threshold: float = 0.5,
) -> tuple[Int64[Tensor, " n"], Float[Tensor, "n 4"], Float[Tensor, " n"]]:
    """The class and the box code that each proposal should get.

    Girshick, *Fast R-CNN*, 2015, section 2.3: a proposal has the class of the true box that it overlaps most, if their
    IoU is at least ``threshold``, and else is background.

    Args:
        proposals: boxes of one image, ``(n, 4)``.
        truth: its true boxes, ``(m, 4)``, m of at least 1.
        labels: their classes 0, ..., ``classes - 1``.
        classes: number of classes; background is the class of that number.
        threshold: IoU from which a proposal counts as its object.

    Returns:
        Class ``(n,)``; code of that true box relative to the proposal ``(n, 4)``; IoU with it ``(n,)``.

    Raises:
        ValueError: if there is no true box.
    """
    if len(truth) == 0:
        raise ValueError("truth must have at least one box, got none")
    overlap, partner = box.iou(proposals, truth).max(dim=1)
    target = labels[partner].masked_fill(overlap < threshold, classes)
    return target, box.encode(truth[partner], proposals), overlap


def sample(
    target: Int64[Tensor, " n"], background: int, size: int, share: int | float = 0.25
) -> Int64[Tensor, " k"]:
    """Indices of at most ``size`` proposals, at random, at most the given share of them not background.

    Girshick, *Fast R-CNN*, 2015, section 2.3, takes 64 regions of an image, a quarter of them objects.

    Args:
        target: class of each proposal; negative ones are never drawn.
        background: the class that is background.
        size: how many to draw.
        share: largest share of objects.

    Returns:
        Indices into ``target``: objects first. Drawn by PyTorch's global generator on the CPU.

    Raises:
        ValueError: if ``size`` or ``share`` is out of range.
    """
    if size < 1 or not 0 <= share <= 1:
        raise ValueError(f"size must be at least 1 and share in [0, 1], got {size} and {share}")
    rest = ((target == background) & (target >= 0)).nonzero()[:, 0]
    objects = ((target != background) & (target >= 0)).nonzero()[:, 0]
    objects = objects[torch.randperm(len(objects)).to(objects.device)][: round(share * size)]
    rest = rest[torch.randperm(len(rest)).to(rest.device)][: size - len(objects)]
    return torch.cat([objects, rest])
