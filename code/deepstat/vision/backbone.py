"""The small convolutional network on which every detector of this book stands.

Chapters: vision/detection, vision/single_shot_detection.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Backbone(nn.Module):
    """Five convolutions, each with batch normalization and ReLU, that make one cell of 8 × 8 pixels.

    The first, third and fifth are 4 × 4 with stride 2 and padding 1, so that cell :math:`i` of the map is centred on
    its own pixels :math:`8i` to :math:`8i + 7`; the others are 3 × 3 with padding 1. The output does not say where
    in the image a cell lies, so a smaller or larger image gives a smaller or larger map.

    Args:
        inputs: channels of the image.
        widths: channels of the five layers.

    Attributes:
        stride: 8, pixels between the centres of neighbouring cells.
        channels: channels of the map, the last of ``widths``.

    Shapes: ``(batch, inputs, height, width) -> (batch, channels, height / 8, width / 8)``.

    Raises:
        ValueError: if there are not five positive widths, or an image has another number of channels, or its height or
            width is not a positive multiple of 8.
    """

    stride = 8

    def __init__(self, inputs: int = 1, widths: Sequence[int] = (8, 16, 16, 32, 64)):
        super().__init__()
        if len(widths) != 5 or min(*widths, inputs) < 1:
            raise ValueError(f"widths must be five positive numbers, and inputs one, got {tuple(widths)} and {inputs}")
        self.inputs, self.channels = inputs, widths[-1]
        layers, before = [], inputs
        for k, width in enumerate(widths):
            size, stride = (4, 2) if k % 2 == 0 else (3, 1)
            layers.append(convolution(before, width, size, stride))
            before = width
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch channels h w"]:
        check_images(images, self.inputs, self.stride)
        return self.layers(images)


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution with padding 1, batch normalization, ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def check_images(images: Tensor, channels: int, multiple: int) -> None:
    """Refuse images of another number of channels, or with a height or width that is no multiple of a number."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"images must have shape (batch, {channels}, height, width), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height == 0 or width == 0 or height % multiple or width % multiple:
        near = tuple(max(1, -(-side // multiple)) * multiple for side in (height, width))
        raise ValueError(
            f"images must have height and width that are multiples of {multiple}, such as {near[0]} x {near[1]}, "
            f"got {height} x {width}"
        )
