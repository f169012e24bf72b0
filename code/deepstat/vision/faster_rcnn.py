"""Faster R-CNN: the proposals come from the same map, by a region proposal network.

Chapter: vision/detection.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from deepstat.datasets.scenes import Scenes
from deepstat.foundations.losses import huber
from deepstat.vision import anchors as grid
from deepstat.vision import boxes as box
from deepstat.vision import scene_training
from deepstat.vision.average_precision import Detections
from deepstat.vision.backbone import Backbone
from deepstat.vision.fast_rcnn import CODE_SCALE, RegionHead, multi_task_loss, to_detections
from deepstat.vision.proposals import sample
from deepstat.vision.rcnn import draw, lesson

SIZES = (12.0, 18.0, 27.0)
RATIOS = (0.5, 0.85)


class RegionProposalNetwork(nn.Module):
    """For every cell of a map and every anchor around it: a score for "object", and a box code.

    Ren, He, Girshick and Sun, *Faster R-CNN*, 2015, section 3.1: a 3 × 3 convolution and two 1 × 1 ones. One logit an
    anchor, where the paper has two scores and a softmax, which is the same model.

    Args:
        channels: of the map.
        anchors: anchors around each cell.

    Shapes: ``(n, channels, h, w) -> (n, h * w * anchors), (n, h * w * anchors, 4)``, in the order of
    :func:`deepstat.vision.anchors.grid`.
    """

    def __init__(self, channels: int, anchors: int):
        super().__init__()
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1)
        self.scores = nn.Conv2d(channels, anchors, 1)
        self.codes = nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n anchors"], Float[Tensor, "n anchors 4"]]:
        h = self.hidden(features).relu()
        scores = self.scores(h).permute(0, 2, 3, 1).flatten(1)  # anchors vary fastest
        codes = self.codes(h).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))
        return scores, codes


class FasterRCNN(nn.Module):
    """Faster R-CNN: backbone, region proposal network and Fast R-CNN's head on one map.

    Args:
        backbone: the convolutional layers.
        classes: number of classes, without the background.
        sizes: square roots of the anchors' areas, in pixels.
        ratios: width divided by height of the anchors.
        size: bins along each side of a region.
        width: units of the hidden layer.
        align: whether to use RoI align in place of RoI pooling.

    Shapes: images ``(n, c, h, w)`` to the map ``(n, channels, h', w')``, scores ``(n, a)`` and codes ``(n, a, 4)`` of
    the ``a`` anchors.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        sizes: Sequence[int | float] = SIZES,
        ratios: Sequence[int | float] = RATIOS,
        size: int = 4,
        width: int = 128,
        align: bool = False,
    ):
        super().__init__()
        self.backbone, self.sizes, self.ratios = backbone, tuple(sizes), tuple(ratios)
        self.rpn = RegionProposalNetwork(backbone.channels, len(sizes) * len(ratios))
        self.head = RegionHead(backbone.channels, backbone.stride, classes, size, width, align)

    def forward(
        self, images: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, "n channels h2 w2"], Float[Tensor, "n anchors"], Float[Tensor, "n anchors 4"]]:
        features = self.backbone(images)
        return features, *self.rpn(features)

    def anchors(self, height: int, width: int) -> Float[Tensor, "anchors 4"]:
        """The anchors of an image of this size, in pixels, on the model's device."""
        t = self.backbone.stride
        device = self.rpn.scores.weight.device
        return grid.grid(height // t, width // t, t, self.sizes, self.ratios, device)

    @torch.no_grad()
    def propose(
        self, scores: Float[Tensor, "n anchors"], codes: Float[Tensor, "n anchors 4"], height: int, width: int, most: int = 32
    ) -> list[Float[Tensor, "_ 4"]]:
        """The best boxes of each image, after suppression at an IoU of 0.7; 300 in the paper, ``most`` here.

        Boxes are constants for what follows: no gradient flows through them. Of each image the ``4 * most`` best
        anchors enter the suppression.
        """
        codes = codes.float() * codes.new_tensor(CODE_SCALE).float()
        score, index = scores.float().topk(min(4 * most, scores.shape[1]), dim=1)  # (n, candidates)
        chosen = codes.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = box.clip(box.decode(chosen, self.anchors(height, width)[index]), height, width)
        wide = (boxes[..., 2:] - boxes[..., :2]).amin(dim=2) >= 1  # clipping may leave nothing
        image = wide.nonzero()[:, 0]
        boxes, score = boxes[wide], score[wide]
        apart = 2.0 * max(height, width) * image[:, None]  # moves the images apart: one call for all
        kept = box.nms(boxes + apart, score, 0.7)
        found = [boxes[kept[image[kept] == k]][:most] for k in range(len(scores))]
        return found


def rpn_loss(
    scores: Float[Tensor, " anchors"],
    codes: Float[Tensor, "anchors 4"],
    target: Int64[Tensor, " anchors"],
    code: Float[Tensor, "anchors 4"],
    locations: int,
    weight: int | float = 10,
) -> Float[Tensor, ""]:
    r"""The loss of a region proposal network.

    Ren et al., 2015, equation 1,

    .. math:: \frac1{N_{cls}} \sum_i L_{cls}(p_i, p_i^*) + \frac\lambda{N_{reg}} \sum_i p_i^* L_{reg}(t_i, t_i^*),

    with the binary cross-entropy, Huber's loss with :math:`\delta = 1` summed over the four codes, the number
    :math:`N_{cls}` of anchors drawn, and the number :math:`N_{reg}` of places on the map.

    Args:
        scores: logits of :math:`p_i`, of the anchors drawn.
        codes: :math:`t_i`.
        target: :math:`p_i^*`, 1 for an object and 0 for background.
        code: :math:`t_i^*`, ignored where the target is 0.
        locations: :math:`N_{reg}`.
        weight: :math:`\lambda`.

    Returns:
        The loss.
    """
    positive = target == 1
    residual = huber(codes[positive], code[positive].to(codes.dtype), 1.0)
    classification = functional.binary_cross_entropy_with_logits(scores, target.to(scores.dtype))
    return classification + weight * residual.sum() / locations


def train(
    model: FasterRCNN,
    scenes: Scenes,
    *,
    steps: int,
    seed: int,
    learning_rate: float = 5e-3,
    batch: int = 16,
    regions: int = 16,
    drawn: int = 64,
    weight: int | float = 10,
) -> float:
    """Train the proposal network and the head together ("approximate joint training" in the paper's words).

    Args:
        model: trained in place.
        scenes: the training images.
        steps, seed, learning_rate, batch: as in :func:`deepstat.vision.scene_training.minimize`.
        regions: proposals of an image in a step for the head, at most a quarter of them objects.
        drawn: anchors of an image in a step, at most half of them objects; 256 in the paper.
        weight: of the box loss of the proposal network.

    Returns:
        The mean loss over all steps.
    """
    height, width = scenes.images.shape[2:]
    where = next(model.parameters()).device
    every = model.anchors(height, width).cpu()
    scale = torch.tensor(CODE_SCALE)
    lessons = []  # for each image: class of each anchor (1 object, 0 background, -1 ignored) and its code
    for truth in scenes.boxes:
        partner = grid.match(every, truth, 0.3, 0.7)
        target = (partner >= 0).long().masked_fill(partner == grid.IGNORED, -1)
        lessons.append((target, box.encode(truth[partner.clamp(min=0)], every) / scale))
    locations = len(every) // (len(model.sizes) * len(model.ratios))

    def loss(rows: Tensor) -> Tensor:
        features, scores, codes = model(scenes.images[rows].to(where))
        chosen = [(place, *lessons[row], sample(lessons[row][0], 0, drawn, 0.5)) for place, row in enumerate(rows.tolist())]
        image = torch.cat([torch.full_like(c, place) for place, _, _, c in chosen]).to(where)
        anchor = torch.cat([c for *_, c in chosen]).to(where)
        target = torch.cat([t[c] for _, t, _, c in chosen]).to(where)
        code = torch.cat([v[c] for _, _, v, c in chosen]).to(where)
        first = rpn_loss(scores[image, anchor], codes[image, anchor], target, code, locations * len(rows), weight)
        proposals = [p.cpu() for p in model.propose(scores.detach(), codes.detach(), height, width, 16)]
        truths = ((scenes.boxes[row], scenes.labels[row]) for row in rows.tolist())
        second = [lesson(p, *truth, scenes.classes) for p, truth in zip(proposals, truths, strict=True)]
        rois, image, target, code = draw(second, torch.arange(len(rows)), scenes.classes, regions, where)
        logits, codes = model.head(features, rois, image)
        return first + multi_task_loss(logits, codes, target, code / scale.to(where))

    settings = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    return scene_training.minimize(model, loss, len(scenes), **settings)


@torch.no_grad()
def detect(
    model: FasterRCNN, images: Float[Tensor, "n c h w"], *, most: int = 32, lowest: int | float = 0.02, chunk: int = 100
) -> list[Detections]:
    """Detections in each image, by the probabilities of the classes, on the CPU.

    Args:
        model: asked in evaluation mode, and left in it.
        images: ``(n, c, h, w)``.
        most: proposals of an image.
        lowest: lower probabilities are dropped.
        chunk: images at a time.
    """
    model.eval()
    where = next(model.parameters()).device
    height, width = images.shape[2:]
    found = []
    for start in range(0, len(images), chunk):
        features, scores, codes = model(images[start : start + chunk].to(where))
        proposals = model.propose(scores, codes, height, width, most)
        image = torch.repeat_interleave(torch.tensor([len(p) for p in proposals])).to(where)
        logits, codes = model.head(features, torch.cat(proposals), image)
        found += to_detections(logits, codes, proposals, height, width, lowest)
    return found
