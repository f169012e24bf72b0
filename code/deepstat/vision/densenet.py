"""Densely connected networks: every layer sees the feature maps of all layers before it.

Huang, Liu, van der Maaten and Weinberger, *Densely Connected Convolutional Networks*, 2017.

Chapter: vision/classic_cnns.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepstat.vision.cost import check_sizes

BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}  # layers in each block; table 1


class DenseLayer(nn.Module):
    """Normalization, ReLU, 1 × 1 convolution to ``4 * growth`` channels; the same with 3 × 3 to ``growth`` channels.

    Huang et al., 2017, section 3 (DenseNet-B). The result is *concatenated* to the input, not added.

    Shapes: ``(B, channels, h, w)`` to ``(B, channels + growth, h, w)``.
    """

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.new = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, h: Float[Tensor, "B C_in h w"]) -> Float[Tensor, "B C_out h w"]:
        return torch.cat([h, self.new(h)], dim=1)


def dense_block(channels: int, growth: int, layers: int) -> nn.Sequential:
    """As many dense layers in a row: ``channels`` become ``channels + layers * growth``."""
    return nn.Sequential(*(DenseLayer(channels + k * growth, growth) for k in range(layers)))


def transition(channels: int) -> nn.Sequential:
    """Between two blocks: half of the channels, half of height and width."""
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)
    )


class DenseNet(nn.Module):
    """DenseNet-121, -169 or -201. Huang et al., 2017, table 1.

    Args:
        depth: a number in ``BLOCKS``: layers with weights.
        classes: number of logits.
        growth: channels that a layer adds; 32 as published.

    Shapes: ``(B, 3, h, w)``, h and w at least 32, to ``(B, classes)``.

    Raises:
        ValueError: if ``depth`` is another, a number is out of range, or the image is too small or has other channels.
    """

    def __init__(self, depth: int = 121, classes: int = 1000, growth: int = 32):
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
        check_sizes(classes=classes, growth=growth)
        channels = 2 * growth
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )  # fmt: skip
        parts = []
        for k, layers in enumerate(BLOCKS[depth]):
            parts.append(dense_block(channels, growth, layers))
            channels += layers * growth
            if k < 3:
                parts.append(transition(channels))
                channels //= 2
        self.blocks = nn.Sequential(*parts, nn.BatchNorm2d(channels), nn.ReLU())
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B classes"]:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 32:
            raise ValueError(
                f"x must have shape (B, 3, h, w) with h and w of at least 32, such as (B, 3, 224, 224), "
                f"got {tuple(x.shape)}"
            )
        return self.linear(self.average(self.blocks(self.stem(x))).flatten(1))
