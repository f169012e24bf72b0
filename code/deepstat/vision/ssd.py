"""SSD: boxes and classes from default boxes on feature maps of several scales, in one pass.

Chapter: vision/single_shot_detection.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from deepstat.datasets.scenes import Scenes
from deepstat.foundations.losses import huber
from deepstat.vision import anchors, scene_training
from deepstat.vision import boxes as box
from deepstat.vision.average_precision import Detections, suppress
from deepstat.vision.backbone import Backbone, check_images, convolution
from deepstat.vision.fast_rcnn import CODE_SCALE


def default_boxes(
    size: int, maps: Sequence[int], scales: Sequence[float], ratios: Sequence[Sequence[float]]
) -> Float[Tensor, "n 4"]:
    r"""SSD's default boxes on square maps over a square image.

    Liu et al., *SSD*, 2016, section 2.2. Around the centre of each cell of map :math:`k` lies a box of width
    :math:`s_k \sqrt r` and height :math:`s_k / \sqrt r` for each ratio :math:`r`, and a square of side
    :math:`\sqrt{s_k s_{k+1}}`.

    Args:
        size: side of the image in pixels.
        maps: cells along a side of each map.
        scales: :math:`s_1, \dots, s_{m+1}`, shares of the image's side, one more than there are maps.
        ratios: width divided by height, for each map.

    Returns:
        Boxes in pixels: maps in their order, cells row by row, in each cell the ratios in their order and then the
        square. They may reach beyond the image.

    Raises:
        ValueError: if the numbers of maps, scales and ratios do not fit together.
    """
    if not len(maps) == len(ratios) == len(scales) - 1 >= 1:
        raise ValueError(
            "scales must be one more than the maps, and ratios one list for each map, "
            f"got {len(maps)} maps, {len(scales)} scales and {len(ratios)} lists"
        )
    found = []
    for cells, scale, following, shapes in zip(maps, scales, scales[1:], ratios, strict=False):
        several = anchors.grid(cells, cells, size / cells, [scale * size], shapes)
        square = anchors.grid(cells, cells, size / cells, [(scale * following) ** 0.5 * size], [1.0])
        found.append(torch.cat([several.reshape(cells**2, -1, 4), square[:, None]], dim=1).reshape(-1, 4))
    return torch.cat(found)


class SSD(nn.Module):
    r"""A backbone, further layers that halve the map, and on each map two 3 × 3 convolutions: class scores and box codes.

    Liu et al., *SSD*, 2016, section 2.1, where the backbone is VGG-16 and there are six maps.

    Args:
        backbone: its map is the finest.
        classes: number of classes; the last score is that of the background.
        size: side of the square images in pixels.
        scales: of the default boxes, shares of ``size``; one more than there are maps.
        ratios: width divided by height of the default boxes, for every map.
        width: channels of the further maps.

    Attributes:
        default: the default boxes ``(a, 4)``, a buffer.

    Shapes: images ``(n, c, size, size)`` to scores ``(n, a, classes + 1)`` and codes ``(n, a, 4)`` of the ``a`` default
    boxes.

    Raises:
        ValueError: if there is no map, the side of the coarsest would not be a whole number, or an image has another size.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        size: int = 64,
        scales: Sequence[float] = (0.2, 0.3, 0.4, 0.5),
        ratios: Sequence[float] = (0.5, 0.8),
        width: int = 64,
    ):
        super().__init__()
        levels = len(scales) - 1
        if levels < 1:
            raise ValueError(f"scales must be at least two numbers, got {tuple(scales)}")
        coarsest = backbone.stride * 2 ** (levels - 1)
        if size < 1 or size % coarsest:
            raise ValueError(f"size must be a multiple of {coarsest} for {levels} maps, such as {2 * coarsest}, got {size}")
        self.backbone, self.classes, self.size = backbone, classes, size
        channels = [backbone.channels] + [width] * (levels - 1)
        self.further = nn.ModuleList(convolution(c, width, 4, 2) for c in channels[:-1])
        shapes = len(ratios) + 1
        self.scores = nn.ModuleList(nn.Conv2d(c, shapes * (classes + 1), 3, padding=1) for c in channels)
        self.codes = nn.ModuleList(nn.Conv2d(c, shapes * 4, 3, padding=1) for c in channels)
        maps = [size // backbone.stride // 2**k for k in range(levels)]
        self.register_buffer("default", default_boxes(size, maps, scales, [ratios] * levels), persistent=False)

    def forward(
        self, images: Float[Tensor, "n c size size"]
    ) -> tuple[Float[Tensor, "n a classes_and_background"], Float[Tensor, "n a 4"]]:
        check_images(images, self.backbone.inputs, self.size)
        if images.shape[2] != self.size or images.shape[3] != self.size:
            raise ValueError(f"images must be {self.size} x {self.size}, got {images.shape[2]} x {images.shape[3]}")
        maps = [self.backbone(images)]
        for layer in self.further:
            maps.append(layer(maps[-1]))
        scores = [_by_box(layer(x), self.classes + 1) for layer, x in zip(self.scores, maps, strict=True)]
        codes = [_by_box(layer(x), 4) for layer, x in zip(self.codes, maps, strict=True)]
        return torch.cat(scores, dim=1), torch.cat(codes, dim=1)


def _by_box(x: Tensor, numbers: int) -> Tensor:
    """``(n, shapes * numbers, h, w)`` to ``(n, h * w * shapes, numbers)``, in the order of :func:`default_boxes`."""
    return x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, numbers))


def targets(
    default: Float[Tensor, "a 4"], scenes: Scenes
) -> tuple[Int64[Tensor, "n a"], Float[Tensor, "n a 4"]]:
    """The class of each default box in each image, and the code of its object.

    A default box belongs to the object that it overlaps most if their IoU is at least 0.5; each object has at least its
    best default box (Liu et al., 2016, section 2.2).

    Args:
        default: the default boxes.
        scenes: the images.

    Returns:
        Classes, ``scenes.classes`` for the background; codes divided by ``CODE_SCALE``, meaningless for the background.
    """
    classes, codes = [], []
    for truth, labels in scenes.truths:
        partner = anchors.match(default, truth, 0.5, 0.5)
        owner = partner.clamp(min=0)
        classes.append(torch.where(partner >= 0, labels[owner], scenes.classes))
        codes.append(truth[owner])
    codes = box.encode(torch.stack(codes), default) / torch.tensor(CODE_SCALE)
    return torch.stack(classes), codes


def hard_negatives(
    losses: Float[Tensor, "n a"], positive: Float[Tensor, "n a"], ratio: int = 3
) -> Float[Tensor, "n a"]:
    """Which background boxes count: in each image the ``ratio`` times as many as there are positives with the largest loss.

    Args:
        losses: of all default boxes.
        positive: 1 for those that belong to an object.
        ratio: negatives for each positive.

    Returns:
        1 for the chosen ones, else 0.
    """
    rank = losses.masked_fill(positive == 1, -torch.inf).argsort(dim=1, descending=True).argsort(dim=1)
    return ((rank < ratio * positive.sum(dim=1, keepdim=True)) & (positive == 0)).to(losses.dtype)


def loss(
    scores: Float[Tensor, "n a classes_and_background"],
    codes: Float[Tensor, "n a 4"],
    target: Int64[Tensor, "n a"],
    code: Float[Tensor, "n a 4"],
    ratio: int = 3,
    weight: float = 1.0,
) -> Float[Tensor, ""]:
    r"""SSD's loss :math:`\frac1N (L_{conf} + \alpha L_{loc})`, with :math:`N` the matched default boxes of the batch.

    Liu et al., 2016, equations 1 to 3: :math:`L_{conf}` is the cross-entropy of the matched boxes and of the hard
    negatives, :math:`L_{loc}` Huber's loss with :math:`\delta = 1` of the matched boxes' codes.

    Args:
        scores, codes: of the network.
        target, code: of :func:`targets`.
        ratio: negatives for each positive.
        weight: :math:`\alpha`.

    Returns:
        The loss.
    """
    entropies = functional.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    positive = (target < scores.shape[2] - 1).to(entropies.dtype)
    counted = positive + hard_negatives(entropies.detach(), positive, ratio)
    matched = positive == 1
    residual = huber(codes[matched], code[matched].to(codes.dtype), 1.0)  # (N, 4)
    return ((entropies * counted).sum() + weight * residual.sum()) / positive.sum().clamp(min=1)


def train(
    model: SSD, scenes: Scenes, *, steps: int, seed: int, learning_rate: float = 8e-3, batch: int = 16
) -> float:
    """Minimize :func:`loss`.

    Args:
        model: trained in place, on its device.
        scenes: the training images.
        steps, seed, learning_rate, batch: as in :func:`deepstat.vision.scene_training.minimize`.

    Returns:
        The mean loss over all steps.
    """
    where = next(model.parameters()).device
    target, code = targets(model.default.cpu(), scenes)

    def objective(rows: Int64[Tensor, " batch"]) -> Tensor:
        scores, codes = model(scenes.images[rows].to(where))
        return loss(scores, codes, target[rows].to(where), code[rows].to(where))

    settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    return scene_training.minimize(model, objective, len(scenes), **settings)


@torch.no_grad()
def detect(
    model: SSD, images: Float[Tensor, "n c size size"], *, lowest: float = 0.02, overlap: float = 0.45
) -> list[Detections]:
    """Decode the default boxes, drop low probabilities, and suppress overlaps in each class.

    Args:
        model: asked in evaluation mode, and left in it.
        images: ``(n, c, size, size)``.
        lowest: lower probabilities are dropped; 0.01 in the paper, which then keeps 200 detections at most.
        overlap: IoU above which the lower of two detections of one class is dropped.

    Returns:
        Detections in each image, on the CPU.
    """
    model.eval()
    scores, codes = (x.float().cpu() for x in model(images.to(next(model.parameters()).device)))
    boxes = box.clip(box.decode(codes * torch.tensor(CODE_SCALE), model.default.cpu()), model.size, model.size)
    chances = scores.softmax(dim=2)[..., :-1]
    return [suppress(b, p, lowest=lowest, overlap=overlap) for b, p in zip(boxes, chances, strict=True)]
