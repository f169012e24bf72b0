"""SPPNet: the convolutions once for the whole image, and a spatial pyramid for each region.

Chapter: vision/detection.
"""

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor

from deepstat.vision.backbone import Backbone
from deepstat.vision.rcnn import RegionClassifier
from deepstat.vision.spatial_pyramid import spatial_pyramid


class SPPNet(RegionClassifier):
    """SPPNet's network for detection; all other stages are R-CNN's.

    He, Zhang, Ren and Sun, *Spatial Pyramid Pooling in Deep Convolutional Networks*, 2014, section 4. The convolutional
    layers stay as they were pretrained, as in the paper, which trains the dense layers only: their parameters take no
    gradient and their normalization stays in evaluation mode.

    Args:
        backbone: the pretrained convolutional layers.
        classes: number of classes, without the background.
        levels: bins along each side, one number a level.
        width: units of the hidden layer.

    Shapes: images ``(n, c, h, w)``, boxes ``(r, 4)``, index of each box's image ``(r,)`` ``-> (r, classes + 1)``.
    """

    def __init__(self, backbone: Backbone, classes: int, levels: Sequence[int] = (1, 2, 4), width: int = 128):
        super().__init__(backbone, backbone.channels * sum(m**2 for m in levels), classes, width)
        self.levels = tuple(levels)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "SPPNet":
        super().train(mode)
        self.backbone.eval()
        return self

    def describe(
        self, images: Float[Tensor, "n c h w"], rois: Float[Tensor, "r 4"], image: Int64[Tensor, " r"]
    ) -> Float[Tensor, "r length"]:
        """The pyramid over each region of the map of the whole image."""
        return spatial_pyramid(self.backbone(images), rois, image, self.levels, self.backbone.stride)
