"""Fast R-CNN: one network that takes an image and its proposals, and one loss for class and box.

Chapter: vision/detection.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from deepstat.datasets.scenes import Scenes
from deepstat.foundations.losses import huber
from deepstat.vision import scene_training
from deepstat.vision.average_precision import Detections
from deepstat.vision.backbone import Backbone
from deepstat.vision.rcnn import Boxes, draw, lesson, postprocess
from deepstat.vision.roi_pooling import roi_align, roi_pool

CODE_SCALE = (0.1, 0.1, 0.2, 0.2)  # the network predicts codes divided by these, about their standard deviations


class RegionHead(nn.Module):
    """From the map of an image and its regions to scores and box codes.

    Args:
        channels: of the map.
        stride: pixels of the image in a cell of the map.
        classes: number of classes, without the background.
        size: bins along each side of a region.
        width: units of the hidden layer.
        align: whether to use RoI align in place of RoI pooling.

    Shapes: map ``(n, channels, h, w)``, boxes ``(r, 4)``, index ``(r,)`` ``-> (r, classes + 1), (r, classes, 4)``.
    """

    def __init__(self, channels: int, stride: int, classes: int, size: int, width: int, align: bool):
        super().__init__()
        self.stride, self.classes, self.size, self.align = stride, classes, size, align
        self.hidden = nn.Linear(channels * size**2, width)
        self.scores = nn.Linear(width, classes + 1)
        self.codes = nn.Linear(width, 4 * classes)

    def forward(
        self, features: Float[Tensor, "n c h w"], rois: Float[Tensor, "r 4"], image: Int64[Tensor, " r"]
    ) -> tuple[Float[Tensor, "r classes_and_background"], Float[Tensor, "r classes 4"]]:
        pool = roi_align if self.align else roi_pool
        h = self.hidden(pool(features, rois, image, self.size, self.stride).flatten(1)).relu()
        return self.scores(h), self.codes(h).unflatten(1, (self.classes, 4))


class FastRCNN(nn.Module):
    """Fast R-CNN.

    Girshick, *Fast R-CNN*, 2015: section 2.1 with RoI pooling to 7 × 7 bins, and two hidden layers.

    Args:
        backbone: the convolutional layers.
        classes: number of classes, without the background.
        size: bins along each side of a region.
        width: units of the hidden layer.
        align: whether to use RoI align in place of RoI pooling.

    Shapes: images ``(n, c, h, w)``, boxes ``(r, 4)``, index ``(r,)`` ``-> (r, classes + 1), (r, classes, 4)``.
    """

    def __init__(self, backbone: Backbone, classes: int, size: int = 4, width: int = 128, align: bool = False):
        super().__init__()
        self.backbone = backbone
        self.head = RegionHead(backbone.channels, backbone.stride, classes, size, width, align)

    def forward(
        self, images: Float[Tensor, "n c h w"], rois: Float[Tensor, "r 4"], image: Int64[Tensor, " r"]
    ) -> tuple[Float[Tensor, "r classes_and_background"], Float[Tensor, "r classes 4"]]:
        return self.head(self.backbone(images), rois, image)


def multi_task_loss(
    logits: Float[Tensor, "r classes_and_background"],
    codes: Float[Tensor, "r classes 4"],
    target: Int64[Tensor, " r"],
    code: Float[Tensor, "r 4"],
    weight: int | float = 1,
) -> Float[Tensor, ""]:
    r"""Mean over the regions of :math:`-\log p_u + \lambda\,\mathbb 1\{u \text{ is an object}\} \sum_i s(t^u_i - v_i)`.

    Girshick, *Fast R-CNN*, 2015, equations 1 to 3. :math:`s` is Huber's loss with :math:`\delta = 1` (smooth
    :math:`L_1`), and only the codes of the true class :math:`u` count.

    Args:
        logits: the last column is the background's.
        codes: one code for each class.
        target: true class :math:`u`; the number of classes for the background.
        code: true code :math:`v`, on the scale of ``codes``; ignored for the background.
        weight: :math:`\lambda`.

    Returns:
        The mean loss.
    """
    objects = (target < codes.shape[1]).nonzero()[:, 0]
    residual = huber(codes[objects, target[objects]], code[objects].to(codes.dtype), 1.0)  # (objects, 4)
    return functional.cross_entropy(logits, target) + weight * residual.sum() / len(target)


def train(
    model: FastRCNN,
    scenes: Scenes,
    proposals: Boxes,
    *,
    steps: int,
    seed: int,
    learning_rate: float = 5e-3,
    batch: int = 16,
    regions: int = 16,
    weight: int | float = 1,
) -> float:
    """Train all layers at once; each step sees some regions of each of a few images, which share their maps.

    Args:
        model: trained in place.
        scenes: the training images.
        proposals: the boxes proposed in each of them; the true boxes are added.
        steps, seed, learning_rate, batch: as in :func:`deepstat.vision.scene_training.minimize`.
        regions: regions of an image in a step, at most a quarter of them objects.
        weight: of the box loss.

    Returns:
        The mean loss over all steps.
    """
    lessons = [lesson(*row, scenes.classes) for row in zip(proposals, scenes.boxes, scenes.labels, strict=True)]
    where = next(model.parameters()).device

    def loss(rows: Tensor) -> Tensor:
        rois, image, target, code = draw(lessons, rows, scenes.classes, regions, where)
        logits, codes = model(scenes.images[rows].to(where), rois, image)
        return multi_task_loss(logits, codes, target, code / code.new_tensor(CODE_SCALE), weight)

    settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    return scene_training.minimize(model, loss, len(scenes), **settings)


@torch.no_grad()
def detect(
    model: FastRCNN, images: Float[Tensor, "n c h w"], proposals: Boxes, *, lowest: int | float = 0.02, chunk: int = 100
) -> list[Detections]:
    """Detections in each image, by the probabilities of the classes, on the CPU.

    Args:
        model: asked in evaluation mode, and left in it.
        images: ``(n, c, h, w)``.
        proposals: boxes of each image.
        lowest: lower probabilities are dropped.
        chunk: images at a time.
    """
    model.eval()
    where = next(model.parameters()).device
    found = []
    for start in range(0, len(images), chunk):
        some = list(proposals[start : start + chunk])
        image = torch.repeat_interleave(torch.tensor([len(p) for p in some])).to(where)
        logits, codes = model(images[start : start + chunk].to(where), torch.cat(some).to(where), image)
        found += to_detections(logits, codes, some, *images.shape[2:], lowest)
    return found


def to_detections(
    logits: Tensor, codes: Tensor, proposals: Boxes, height: int, width: int, lowest: int | float
) -> list[Detections]:
    """What the head says about the regions of some images, as detections on the CPU."""
    probabilities = logits.float().softmax(dim=1)[:, :-1].cpu()
    codes = codes.float().cpu() * torch.tensor(CODE_SCALE)
    return postprocess(probabilities, codes, [p.cpu() for p in proposals], height, width, lowest)
