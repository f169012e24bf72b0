"""R-CNN: classify warped region proposals by a convolutional network, a linear SVM and a ridge regression of the boxes.

Chapter: vision/detection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn import functional

from deepstat.datasets.scenes import Scenes
from deepstat.vision import boxes as box
from deepstat.vision import proposals as propose
from deepstat.vision import scene_training
from deepstat.vision.average_precision import Detections
from deepstat.vision.backbone import Backbone
from deepstat.vision.roi_pooling import warp

Boxes = Sequence[Float[Tensor, "_ 4"]]


class RegionClassifier(nn.Module):
    """What R-CNN and SPPNet share: a description of each region, one hidden layer, scores of classes and background.

    Subclasses define :meth:`describe`, which maps ``(images, rois, image)`` to ``(r, length)``.

    Args:
        backbone: the convolutional layers.
        length: numbers in the description of a region.
        classes: number of classes; the last score is that of the background.
        width: hidden units.
    """

    def __init__(self, backbone: Backbone, length: int, classes: int, width: int):
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self.hidden = nn.Linear(length, width)
        self.scores = nn.Linear(width, classes + 1)

    def forward(
        self, images: Float[Tensor, "n c h w"], rois: Float[Tensor, "r 4"], image: Int64[Tensor, " r"]
    ) -> Float[Tensor, "r classes_and_background"]:
        return self.scores(self.hidden(self.describe(images, rois, image)).relu())


class RCNN(RegionClassifier):
    r"""R-CNN's network: each region is warped to a square and goes through all layers by itself.

    Girshick, Donahue, Darrell and Malik, *Rich Feature Hierarchies for Accurate Object Detection*, 2014, section 2.
    There the square has 227 pixels with 16 of context, and the network is AlexNet, pretrained on ImageNet.

    Args:
        backbone: the convolutional layers.
        classes: number of classes, without the background.
        size: side of the square in pixels, a multiple of the backbone's stride.
        context: how many of them show the surroundings, on every side.
        width: units of the hidden layer.

    Shapes: images ``(n, c, h, w)``, boxes ``(r, 4)``, index of each box's image ``(r,)`` ``-> (r, classes + 1)``.

    Raises:
        ValueError: if ``size`` is no multiple of the stride.
    """

    def __init__(self, backbone: Backbone, classes: int, size: int = 32, context: int = 3, width: int = 128):
        if size < 1 or size % backbone.stride:
            raise ValueError(f"size must be a multiple of {backbone.stride}, such as {4 * backbone.stride}, got {size}")
        super().__init__(backbone, backbone.channels * (size // backbone.stride) ** 2, classes, width)
        self.size, self.context = size, context

    def describe(
        self, images: Float[Tensor, "n c h w"], rois: Float[Tensor, "r 4"], image: Int64[Tensor, " r"]
    ) -> Float[Tensor, "r length"]:
        """The last convolutional map of each warped region, as a vector."""
        return self.backbone(warp(images, rois, image, self.size, self.context)).flatten(1)


def fine_tune(
    model: RegionClassifier,
    scenes: Scenes,
    proposals: Boxes,
    *,
    steps: int,
    seed: int,
    learning_rate: float = 3e-3,
    batch: int = 16,
    regions: int = 8,
) -> float:
    """Train the network to classify proposals (and the true boxes) by cross-entropy.

    A region with an IoU of at least 0.5 with an object is of its class; a step sees at most ``regions`` of each of
    ``batch`` images, a quarter of them objects. The paper draws regions from all images at once.

    Args:
        model: trained in place, those parameters that require a gradient.
        scenes: the training images.
        proposals: the boxes proposed in each of them.
        steps, seed, learning_rate, batch: as in :func:`deepstat.vision.scene_training.minimize`.
        regions: regions of an image in a step.

    Returns:
        The mean loss over all steps.
    """
    lessons = [lesson(*row, scenes.classes) for row in zip(proposals, scenes.boxes, scenes.labels, strict=True)]

    def loss(rows: Tensor) -> Tensor:
        rois, image, target, _ = draw(lessons, rows, scenes.classes, regions, scenes.images.device)
        where = next(model.parameters()).device
        logits = model(scenes.images[rows].to(where), rois.to(where), image.to(where))
        return functional.cross_entropy(logits, target.to(where))

    settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    return scene_training.minimize(model, loss, len(scenes), **settings)


Lesson = tuple[Tensor, Tensor, Tensor]  # boxes (n, 4), class (n,), code (n, 4)


def lesson(proposals: Tensor, truth: Tensor, labels: Tensor, classes: int) -> Lesson:
    """The proposals of one image and its true boxes, with the class and the code that each should get."""
    rois = torch.cat([proposals, truth])
    target, code, _ = propose.assign(rois, truth, labels, classes)
    return rois, target, code


def draw(
    lessons: Sequence[Lesson], rows: Tensor, classes: int, regions: int, where: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some regions of each image of a batch: boxes, index of the image in the batch, class, code."""
    parts = []
    for place, row in enumerate(rows.tolist()):
        rois, target, code = lessons[row]
        chosen = propose.sample(target, classes, regions)
        parts.append((rois[chosen], torch.full_like(chosen, place), target[chosen], code[chosen]))
    return tuple(torch.cat(column).to(where) for column in zip(*parts, strict=True))


@torch.no_grad()
def describe_all(
    model: RegionClassifier, images: Float[Tensor, "n c h w"], proposals: Boxes, chunk: int = 50
) -> tuple[Float[Tensor, "r length"], Float[Tensor, "r width"]]:
    """Descriptions and hidden units of all regions of all images, in their order, on the CPU, in evaluation mode."""
    model.eval()
    where = next(model.parameters()).device
    pooled = []
    for start in range(0, len(images), chunk):
        some = list(proposals[start : start + chunk])
        image = torch.repeat_interleave(torch.tensor([len(p) for p in some]))
        described = model.describe(images[start : start + chunk].to(where), torch.cat(some).to(where), image.to(where))
        pooled.append((described.cpu(), model.hidden(described).relu().cpu()))
    return tuple(torch.cat(column) for column in zip(*pooled, strict=True))


@dataclass(frozen=True)
class LinearHeads:
    """The last stages of R-CNN: one linear SVM for each class, and one ridge regression of the box codes.

    Args:
        svm: fitted on hidden units; its last class is the background.
        ridge: one regression for each class, from the description to the four codes; None for none.
    """

    svm: LinearSVC
    ridge: Sequence[Ridge] | None


def fit_heads(
    features: tuple[Float[Tensor, "r length"], Float[Tensor, "r width"]],
    scenes: Scenes,
    proposals: Boxes,
    *,
    c: float = 0.01,
    alpha: float = 1000.0,
) -> LinearHeads:
    r"""Fit the SVMs and the box regressions of R-CNN on features that stay as they are.

    Girshick et al., 2014, section 2.3 and appendix C. The SVMs see the true boxes of their class against those of the
    others, and against regions whose IoU with every object is below 0.3; what lies between is left out. The features
    fit into memory, so all negatives are used and none has to be mined. The regressions see the proposals with an IoU
    above 0.6 with an object of their class, and have the penalty :math:`\alpha = 1000` of the paper.

    Args:
        features: of :func:`describe_all` for the proposals *followed by* the true boxes of each image.
        scenes: the images.
        proposals: the same proposals, without the true boxes.
        c: weight of the SVM's hinge losses against its penalty.
        alpha: penalty of the regressions.

    Returns:
        The fitted stages.
    """
    targets, codes, overlaps, true = [], [], [], []
    for p, truth, labels in zip(proposals, scenes.boxes, scenes.labels, strict=True):
        target, code, overlap = propose.assign(torch.cat([p, truth]), truth, labels, scenes.classes, threshold=0.3)
        targets.append(target)
        codes.append(code)
        overlaps.append(overlap)
        true.append(torch.arange(len(target)) >= len(p))
    target, code, overlap, true = map(torch.cat, (targets, codes, overlaps, true))
    pooled, hidden = features
    use = true | (target == scenes.classes)
    svm = LinearSVC(C=c, dual=False).fit(hidden[use].double().numpy(), target[use].numpy())
    ridge = []
    for k in range(scenes.classes):
        mine = (target == k) & (overlap > 0.6)
        ridge.append(Ridge(alpha=alpha).fit(pooled[mine].double().numpy(), code[mine].double().numpy()))
    return LinearHeads(svm, ridge)


def detect(
    heads: LinearHeads,
    features: tuple[Float[Tensor, "r length"], Float[Tensor, "r width"]],
    proposals: Boxes,
    height: int,
    width: int,
    *,
    refine: bool = True,
    lowest: int | float = -1.0,
) -> list[Detections]:
    """Score all regions by the SVMs, correct their boxes by the regressions, and suppress overlaps in each class.

    Args:
        heads: of :func:`fit_heads`.
        features: of :func:`describe_all` for these proposals.
        proposals: boxes of each image.
        height, width: of the images, in pixels.
        refine: whether to use the regressions.
        lowest: SVM scores below this are dropped.

    Returns:
        Detections of each image.
    """
    pooled, hidden = (x.double().numpy() for x in features)
    scores = torch.tensor(heads.svm.decision_function(hidden), dtype=torch.float32)[:, :-1]  # (r, classes)
    codes = torch.zeros(*scores.shape, 4)
    if refine:
        codes = torch.stack([torch.tensor(r.predict(pooled), dtype=torch.float32) for r in heads.ridge], dim=1)
    return postprocess(scores, codes, proposals, height, width, lowest)


def postprocess(
    scores: Float[Tensor, "r classes"],
    codes: Float[Tensor, "r classes 4"],
    proposals: Boxes,
    height: int,
    width: int,
    lowest: int | float,
    overlap: float = 0.3,
) -> list[Detections]:
    """Scores and codes of all regions of some images as detections: decode, clip, drop low scores, suppress overlaps.

    Args:
        scores: of each region for each class.
        codes: of the box, for each class, relative to the region.
        proposals: the regions of each image, in the order of the rows of ``scores``.
        height, width: of the images, in pixels.
        lowest: lower scores are dropped.
        overlap: IoU above which the lower of two detections of one class is dropped; 0.3 in the papers.

    Returns:
        Detections of each image.
    """
    found = []
    counts = [len(p) for p in proposals]
    apart = 2.0 * max(height, width)  # moves the classes apart, so that one call suppresses within each
    for rois, score, code in zip(proposals, scores.split(counts), codes.split(counts), strict=True):
        region, label = (score >= lowest).nonzero(as_tuple=True)
        boxes = box.clip(box.decode(code[region, label], rois[region]), height, width)
        kept = box.nms(boxes + apart * label[:, None], score[region, label], overlap)
        found.append(Detections(boxes[kept], score[region, label][kept], label[kept]))
    return found
