"""Average precision: how well detections, ranked by score, find the objects.

Chapters: vision/detection, vision/single_shot_detection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from deepstat.vision.boxes import batched_nms, iou

Truth = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image.

    Args:
        boxes: ``x1, y1, x2, y2`` in pixels, shape ``(k, 4)``.
        scores: higher is surer, shape ``(k,)``.
        labels: classes 0, 1, ..., shape ``(k,)``.

    Raises:
        ValueError: if the shapes do not fit together.
    """

    boxes: Float[Tensor, "k 4"]
    scores: Float[Tensor, " k"]
    labels: Int64[Tensor, " k"]

    def __post_init__(self):
        k = len(self.boxes)
        shapes = tuple(tuple(x.shape) for x in (self.boxes, self.scores, self.labels))
        if shapes != ((k, 4), (k,), (k,)):
            raise ValueError(f"boxes, scores and labels must have shapes (k, 4), (k,), (k,), got {shapes}")

    def __len__(self) -> int:
        return len(self.boxes)


def suppress(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n classes"], *, lowest: float, overlap: float
) -> Detections:
    """Detections of one image: each box as each class, without low scores and without what a better one overlaps.

    Args:
        boxes: shape ``(n, 4)``.
        scores: of each box for each class, shape ``(n, classes)``.
        lowest: lower scores are dropped.
        overlap: IoU above which the lower of two detections of one class is dropped.

    Returns:
        The detections that are left, best first.
    """
    place, labels = (scores >= lowest).nonzero(as_tuple=True)
    boxes, scores = boxes[place], scores[place, labels]
    kept = batched_nms(boxes, scores, labels, overlap)
    return Detections(boxes[kept], scores[kept], labels[kept])


def average_precision(
    scores: Float[Tensor, " n"], correct: Bool[Tensor, " n"], positives: int, points: int | None = None
) -> float:
    r"""Area under the interpolated precision--recall curve of one class.

    Detections with a score of at least :math:`s` have precision :math:`p` (the share that is correct) and recall
    :math:`r` (the share of the objects that is found). With :math:`\bar p(r) = \max_{r' \ge r} p(r')`, and 0 beyond the
    largest recall, it is :math:`\int_0^1 \bar p(r)\,dr`, or the mean of :math:`\bar p` at ``points`` equidistant recalls
    from 0 to 1: 11 in PASCAL VOC until 2009 (Everingham et al., 2010, section 4.2), all since 2010. Detections of equal
    score enter together, so that the result does not depend on their order.

    Args:
        scores: of the detections of one class in all images, shape ``(n,)``.
        correct: which of them found an object, shape ``(n,)``.
        positives: number of objects, found or not.
        points: at least 2; None for the integral.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: if a shape or number is out of range, or more detections are correct than there are objects.
    """
    if scores.ndim != 1 or correct.shape != scores.shape:
        raise ValueError(
            f"scores and correct must have one shape (n,), got {tuple(scores.shape)} and {tuple(correct.shape)}"
        )
    found = int(correct.sum())
    if positives < max(1, found):
        raise ValueError(f"positives must be at least 1 and at least the {found} correct detections, got {positives}")
    if points is not None and points < 2:
        raise ValueError(f"points must be at least 2 or None, got {points}")
    if scores.isnan().any():
        raise ValueError("scores must be numbers, got NaN")
    if found == 0:
        return 0.0
    ranked, order = scores.sort(descending=True)
    hits = correct[order].cumsum(0)
    last = torch.cat([ranked[1:] != ranked[:-1], ranked.new_ones(1, dtype=torch.bool)])  # of those with equal score
    rank = torch.arange(1, len(hits) + 1, device=hits.device)[last]
    hits = hits[last]
    precision = (hits / rank.double()).flip(0).cummax(0).values.flip(0)  # now the interpolated one
    if points is None:
        steps = hits.diff(prepend=hits.new_zeros(1))
        return float((steps * precision).sum() / positives)
    wanted = torch.arange(points, device=hits.device) * positives  # recall k / (points - 1), in integers
    place = torch.searchsorted(hits * (points - 1), wanted)  # the first that reaches it
    return float(torch.cat([precision, precision.new_zeros(1)])[place].mean())


def judge(detections: Detections, truth: Truth, threshold: float = 0.5) -> Bool[Tensor, " k"]:
    """Which detections of one image found an object, by the rule of PASCAL VOC.

    In the order of their scores, each detection is given to the object of its class that it overlaps most. It is
    correct if their IoU is at least ``threshold`` and the object was not found before: a second detection of an object
    is an error.

    Args:
        detections: of one image, k of them.
        truth: boxes, shape ``(m, 4)``, and labels, shape ``(m,)``.
        threshold: IoU from which a box counts as found, in (0, 1].

    Returns:
        Shape ``(k,)``.

    Raises:
        ValueError: if ``threshold`` is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    boxes, labels = truth
    correct = torch.zeros(len(detections), dtype=torch.bool, device=detections.boxes.device)
    if len(boxes) == 0 or len(detections) == 0:
        return correct
    overlap = iou(detections.boxes, boxes.to(detections.boxes))  # (k, m)
    overlap = overlap.masked_fill(detections.labels[:, None] != labels.to(correct.device), -1.0)
    best, partner = (x.tolist() for x in overlap.max(dim=1))
    taken = set()
    for i in detections.scores.argsort(descending=True, stable=True).tolist():
        if best[i] >= threshold and partner[i] not in taken:
            taken.add(partner[i])
            correct[i] = True
    return correct


def mean_average_precision(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    classes: int,
    threshold: float = 0.5,
    points: int | None = None,
) -> float:
    """Mean over the classes of their average precision (mAP), over a set of images.

    Args:
        detections: one for each image.
        truths: one pair of boxes ``(m, 4)`` and labels ``(m,)`` for each image.
        classes: number of classes; one without an object in any image does not enter the mean.
        threshold: as in :func:`judge`.
        points: as in :func:`average_precision`.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: if there are not as many truths as detections, or no object at all.
    """
    return _mean(_judged(detections, truths, threshold), classes, points)


def bootstrap(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    classes: int,
    repeats: int,
    seed: int,
    threshold: float = 0.5,
) -> Float[Tensor, " repeats"]:
    """The mean average precision on sets of images drawn with replacement from these.

    Images are drawn, with all that is in them, because the objects of one image are not independent. The percentiles
    of the result are an interval for the mAP of this detector, as trained, on images of this kind; they do not show how
    much another training run would differ. With one seed two detectors are judged on the same draws, so that the
    difference of two results is a paired bootstrap of the difference.

    Args:
        detections: one for each image.
        truths: as in :func:`mean_average_precision`.
        classes: number of classes.
        repeats: number of draws.
        seed: of the draws.
        threshold: as in :func:`judge`.

    Returns:
        Shape ``(repeats,)``.

    Raises:
        ValueError: as :func:`mean_average_precision`, and if a draw has no object.
    """
    images = _judged(detections, truths, threshold)
    _mean(images, classes, None)  # refuses what it cannot take
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(images), (repeats, len(images)), generator=generator)
    times = torch.stack([torch.bincount(draw, minlength=len(images)) for draw in draws])  # (repeats, images)
    scores, labels, correct, objects = (torch.cat(column) for column in zip(*images, strict=True))
    found_in, object_in = (
        torch.repeat_interleave(torch.arange(len(images)), torch.tensor([len(image[k]) for image in images])) for k in (0, 3)
    )
    total, present = torch.zeros(repeats).double(), torch.zeros(repeats)
    for k in range(classes):
        positives = times[:, object_in[objects == k]].sum(dim=1)
        ranked, order = scores[labels == k].sort(descending=True)
        last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(len(ranked[:1]), dtype=torch.bool)])
        weight = times[:, found_in[labels == k][order]]  # each detection counts as often as its image was drawn
        hits = (weight * correct[labels == k][order]).cumsum(dim=1)[:, last]
        precision = hits / weight.cumsum(dim=1)[:, last].clamp(min=1).double()
        precision = precision.flip(1).cummax(dim=1).values.flip(1)
        steps = hits.diff(dim=1, prepend=hits.new_zeros(repeats, 1))
        total += (steps * precision).sum(dim=1) / positives.clamp(min=1)
        present += positives > 0
    if (present == 0).any():
        raise ValueError("truths must have so many objects that each draw has one, got a draw with none")
    return (total / present).float()


Judged = tuple[Tensor, Tensor, Tensor, Tensor]  # of one image: scores, labels, correct; labels of the objects


def _judged(detections: Sequence[Detections], truths: Sequence[Truth], threshold: float) -> list[Judged]:
    if len(detections) != len(truths):
        raise ValueError(f"truths must be one for each of the {len(detections)} images, got {len(truths)}")
    return [
        tuple(x.cpu() for x in (found.scores.float(), found.labels, judge(found, truth, threshold), truth[1]))
        for found, truth in zip(detections, truths, strict=True)
    ]


def _mean(images: Sequence[Judged], classes: int, points: int | None) -> float:
    if not images:
        raise ValueError("truths must have at least one object, got no image")
    scores, labels, correct, objects = (torch.cat(column) for column in zip(*images, strict=True))
    counts = torch.bincount(objects, minlength=classes).tolist()
    if len(counts) > classes or sum(counts) == 0:
        raise ValueError(f"truths must have at least one object, of classes 0 to {classes - 1}, got counts {counts}")
    results = []
    for k, count in enumerate(counts):
        if count:
            mine = labels == k
            results.append(average_precision(scores[mine], correct[mine], count, points))
    return sum(results) / len(results)
