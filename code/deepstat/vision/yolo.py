"""YOLO: one regression from the image to the boxes and classes of a grid of cells.

Chapter: vision/single_shot_detection.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.datasets.scenes import Scenes
from deepstat.vision import boxes as box
from deepstat.vision import scene_training
from deepstat.vision.average_precision import Detections, suppress
from deepstat.vision.backbone import Backbone, convolution


class YOLO(nn.Module):
    r"""For each cell of a grid: :math:`A` boxes with a confidence each, and one set of class probabilities.

    Redmon, Divvala, Girshick and Farhadi, *You Only Look Once*, 2016, section 2; :math:`A` is their :math:`B`. There the
    last two layers are dense and see the whole image. Here they are a 3 × 3 and a 1 × 1 convolution, so that a few
    thousand scenes suffice and the image may have any size.

    Args:
        backbone: the convolutional layers; a cell of their map is a cell of the grid.
        classes: number of classes.
        boxes: boxes of a cell, :math:`A`.
        width: channels of the layer before the last.

    Shapes: ``(n, c, height, width) -> (n, rows, columns, 5 * boxes + classes)``. Of a cell, first come for each box the
    confidence, the centre :math:`(x, y)` as shares of the cell, and :math:`\sqrt w, \sqrt h` as shares of the image;
    then the probabilities of the classes, given that there is an object. All are linear in the last layer.

    Raises:
        ValueError: if ``boxes`` or ``classes`` is below 1, or an image has a size that the backbone refuses.
    """

    def __init__(self, backbone: Backbone, classes: int, boxes: int = 2, width: int = 64):
        super().__init__()
        if min(boxes, classes) < 1:
            raise ValueError(f"boxes and classes must be at least 1, got {boxes} and {classes}")
        self.backbone, self.classes, self.boxes = backbone, classes, boxes
        self.head = nn.Sequential(convolution(backbone.channels, width), nn.Conv2d(width, 5 * boxes + classes, 1))

    def forward(self, images: Float[Tensor, "n c height width"]) -> Float[Tensor, "n rows columns outputs"]:
        return self.head(self.backbone(images)).permute(0, 2, 3, 1)


def targets(scenes: Scenes, stride: int) -> Float[Tensor, "n rows columns 6"]:
    r"""What each cell should say: 1 if an object's centre lies in it, else 0; its :math:`x, y, \sqrt w, \sqrt h`; its class.

    A cell has one set of class probabilities and can teach one object only. Where two centres share a cell, the last
    object of the scene stays.

    Args:
        scenes: the images.
        stride: side of a cell in pixels.

    Returns:
        Shape ``(n, rows, columns, 6)``, on the CPU.
    """
    n, _, height, width = scenes.images.shape
    found = torch.zeros(n, height // stride, width // stride, 6)
    for i, (truth, labels) in enumerate(scenes.truths):
        centre, size = (truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:] - truth[:, :2]
        cell = (centre / stride).floor()
        shares = (size / torch.tensor([width, height])).sqrt()
        values = torch.cat([torch.ones(len(truth), 1), centre / stride - cell, shares, labels[:, None].float()], dim=1)
        for (column, row), value in zip(cell.long().tolist(), values, strict=True):
            found[i, row, column] = value
    return found


def to_boxes(codes: Float[Tensor, "n rows columns *a 4"], stride: int) -> Float[Tensor, "n rows columns *a 4"]:
    r"""Boxes in pixels from :math:`x, y` as shares of the cell and :math:`\sqrt w, \sqrt h` as shares of the image."""
    rows, columns = codes.shape[1:3]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corner = torch.stack([x, y], dim=-1).to(codes)  # (rows, columns, 2)
    if codes.ndim == 5:
        corner = corner[:, :, None]  # the same for all boxes of a cell
    centre = (codes[..., :2] + corner) * stride
    half = codes[..., 2:].square() * codes.new_tensor([columns, rows]) * stride / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def loss(
    output: Float[Tensor, "n rows columns outputs"],
    target: Float[Tensor, "n rows columns 6"],
    boxes: int,
    stride: int,
    coordinates: float = 5.0,
    empty: float = 0.5,
) -> Float[Tensor, ""]:
    r"""YOLO's sum of squares, as a mean over the images.

    Redmon et al., 2016, equation 3. Of the boxes of a cell with an object, the one whose IoU with it is largest is
    *responsible*: its four numbers should be the object's, its confidence that IoU. All other confidences, of all
    cells, should be 0.

    Args:
        output: of the network.
        target: of :func:`targets`.
        boxes: boxes of a cell.
        stride: side of a cell in pixels.
        coordinates: weight of the boxes' squares, :math:`\lambda_{coord}`.
        empty: weight of the confidences that should be 0, :math:`\lambda_{noobj}`.

    Returns:
        The loss.
    """
    predicted, classes = output[..., : 5 * boxes].unflatten(-1, (boxes, 5)), output[..., 5 * boxes :]
    image, row, column = (target[..., 0] == 1).nonzero(as_tuple=True)  # k cells with an object
    truth = target[image, row, column]
    mine = predicted[image, row, column]  # (k, boxes, 5)
    with torch.no_grad():
        candidates = to_boxes(predicted[..., 1:].float(), stride)[image, row, column]  # (k, boxes, 4)
        objects = to_boxes(target[..., 1:5], stride)[image, row, column]  # (k, 4)
        overlap = torch.stack([box.iou(candidates[:, a], objects).diagonal() for a in range(boxes)], dim=1)
        overlap, responsible = overlap.max(dim=1)  # (k,)
    mine = mine[torch.arange(len(mine)), responsible]  # (k, 5)
    located = (mine[:, 1:] - truth[:, 1:5]).square().sum()
    sure = (mine[:, 0] - overlap.to(mine.dtype)).square().sum()
    unsure = predicted[..., 0].square().sum() - mine[:, 0].square().sum()
    kind = torch.nn.functional.one_hot(truth[:, 5].long(), classes.shape[-1])
    classified = (classes[image, row, column] - kind).square().sum()
    return (coordinates * located + sure + empty * unsure + classified) / len(output)


def train(
    model: YOLO, scenes: Scenes, *, steps: int, seed: int, learning_rate: float = 8e-3, batch: int = 16
) -> float:
    """Minimize :func:`loss`.

    Args:
        model: trained in place, on its device.
        scenes: the training images.
        steps, seed, learning_rate, batch: as in :func:`deepstat.vision.scene_training.minimize`.

    Returns:
        The mean loss over all steps.
    """
    stride, where = model.backbone.stride, next(model.parameters()).device
    wanted = targets(scenes, stride)

    def objective(rows: Int64[Tensor, " batch"]) -> Tensor:
        return loss(model(scenes.images[rows].to(where)), wanted[rows].to(where), model.boxes, stride)

    settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    return scene_training.minimize(model, objective, len(scenes), **settings)


@torch.no_grad()
def detect(
    model: YOLO, images: Float[Tensor, "n c height width"], *, lowest: float = 0.02, overlap: float = 0.5
) -> list[Detections]:
    """Score each box of each cell for each class by confidence times probability, and suppress overlaps in each class.

    Args:
        model: asked in evaluation mode, and left in it.
        images: ``(n, c, height, width)``.
        lowest: lower scores are dropped.
        overlap: IoU above which the lower of two detections of one class is dropped.

    Returns:
        Detections in each image, on the CPU.
    """
    model.eval()
    height, width = images.shape[2:]
    outputs = model(images.to(next(model.parameters()).device)).float().cpu()
    predicted = outputs[..., : 5 * model.boxes].unflatten(-1, (model.boxes, 5))
    classes = outputs[..., None, 5 * model.boxes :]  # the same for all boxes of a cell
    scores = (predicted[..., :1] * classes).flatten(1, 3)  # (n, rows * columns * boxes, classes)
    boxes = box.clip(to_boxes(predicted[..., 1:], model.backbone.stride).flatten(1, 3), height, width)
    return [suppress(b, s, lowest=lowest, overlap=overlap) for b, s in zip(boxes, scores, strict=True)]
