"""Residual networks, and the plain networks that they are compared with.

He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition*, 2016.

Chapter: vision/classic_cnns.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepstat.vision.cost import check_sizes


class BasicBlock(nn.Module):
    r"""Two 3 × 3 convolutions and a skip connection, :math:`\mathbf h' = a(F(\mathbf h) + S\mathbf h)`.

    He et al., 2016, figure 2 and equations 1 and 2. Every convolution is followed by batch normalization, and so has
    no bias. :math:`S` is the identity; where channels or stride change it is a 1 × 1 convolution with batch
    normalization (their option B).

    Args:
        channels: of the input.
        width: channels of the output.
        stride: of the first convolution and of :math:`S`.
        skip: if not, :math:`S = 0`: the plain block.

    Shapes: ``(B, channels, h, w)`` to ``(B, width, ceil(h / stride), ceil(w / stride))``.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int = 1, skip: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.skip = shortcut(channels, width, stride) if skip else None

    def forward(self, h: Float[Tensor, "B C_in h w"]) -> Float[Tensor, "B C_out h2 w2"]:
        residual = torch.relu(self.norm1(self.conv1(h)))
        residual = self.norm2(self.conv2(residual))
        return torch.relu(residual if self.skip is None else residual + self.skip(h))


class Bottleneck(nn.Module):
    """A 1 × 1 convolution to fewer channels, a 3 × 3 convolution there, and a 1 × 1 convolution back, with a skip.

    He et al., 2016, figure 5. The stride is in the first convolution, as published; ``stride_in=2`` puts it into the
    3 × 3 convolution, as many libraries do: the same parameters, more operations. Other arguments and shapes are those
    of :class:`BasicBlock`, with ``4 * width`` channels in the output.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int = 1, skip: bool = True, stride_in: int = 1):
        super().__init__()
        first, second = (stride, 1) if stride_in == 1 else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.skip = shortcut(channels, 4 * width, stride) if skip else None

    def forward(self, h: Float[Tensor, "B C_in h w"]) -> Float[Tensor, "B C_out h2 w2"]:
        residual = torch.relu(self.norm1(self.conv1(h)))
        residual = torch.relu(self.norm2(self.conv2(residual)))
        residual = self.norm3(self.conv3(residual))
        return torch.relu(residual if self.skip is None else residual + self.skip(h))


def shortcut(channels: int, width: int, stride: int) -> nn.Module:
    """The identity where shapes allow it, else a 1 × 1 convolution with batch normalization."""
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


DEPTHS = {  # blocks in the four stages; He et al., 2016, table 1
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    r"""ResNet-18, -34, -50, -101 or -152, for images of 224 × 224 pixels.

    He et al., 2016, table 1: a 7 × 7 convolution, max pooling, four stages of blocks of which all but the first halve
    height and width, global average pooling, one linear layer. Convolutions start from the normal weights of He et
    al., 2015, with fan-out.

    Args:
        depth: a number in ``DEPTHS``: layers with weights on the longest path.
        classes: number of logits.
        channels: of the input image.
        width: channels of the first stage; 64 as published.
        skip: whether there are skip connections; without, the plain network of the paper.
        stride_in: see :class:`Bottleneck`.

    Shapes: ``(B, channels, h, w)``, h and w at least 32, to ``(B, classes)``.

    Raises:
        ValueError: if ``depth`` is another, a number is out of range, or the image is too small or has other channels.
    """

    def __init__(
        self,
        depth: int,
        classes: int = 1000,
        channels: int = 3,
        width: int = 64,
        skip: bool = True,
        stride_in: int = 1,
    ):
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        if stride_in not in (1, 2):
            raise ValueError(f"stride_in must be 1 or 2, got {stride_in}")
        check_sizes(classes=classes, channels=channels, width=width)
        self.channels = channels
        block, blocks = DEPTHS[depth]
        options = {"stride_in": stride_in} if block is Bottleneck else {}
        self.conv = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        stages, features = [], width
        for stage, number in enumerate(blocks):
            layers = []
            for k in range(number):
                stride = 2 if stage > 0 and k == 0 else 1
                layers.append(block(features, width * 2**stage, stride, skip, **options))
                features = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(features, classes)
        initialize(self)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B classes"]:
        check_image(x, self.channels, least=32)
        h = self.pool(torch.relu(self.norm(self.conv(x))))
        h = self.average(self.stages(h))
        return self.linear(h.flatten(1))


class SmallResNet(nn.Module):
    r"""The 6n + 2 layers of the paper's section 4.2, for small images.

    He et al., 2016: a 3 × 3 convolution, three stages of n basic blocks each, of which the second and third halve
    height and width and double the channels, global average pooling, one linear layer. Where the shape changes the
    skip is a projection (option B; the paper pads with zeros, option A).

    Args:
        depth: 6n + 2: 8, 14, 20, ...
        classes: number of logits.
        channels: of the input image.
        width: channels of the first stage; 16 in the paper.
        skip: whether there are skip connections.

    Shapes: ``(B, channels, h, w)``, h and w at least 4, to ``(B, classes)``.

    Raises:
        ValueError: if ``depth`` is not 6n + 2, a number is out of range, or the image is too small or has other
            channels.
    """

    def __init__(self, depth: int, classes: int = 10, channels: int = 1, width: int = 16, skip: bool = True):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2, such as 8, 14 or 20, got {depth}")
        check_sizes(classes=classes, channels=channels, width=width)
        self.channels = channels
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, features = [], width
        for stage in range(3):
            for k in range(depth // 6):
                stride = 2 if stage > 0 and k == 0 else 1
                blocks.append(BasicBlock(features, width * 2**stage, stride, skip))
                features = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(features, classes)
        initialize(self)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B classes"]:
        check_image(x, self.channels, least=4)
        h = self.blocks(torch.relu(self.norm(self.conv(x))))
        return self.linear(self.average(h).flatten(1))


def initialize(model: nn.Module) -> None:
    """He's normal weights with fan-out for all convolutions."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def check_image(x: Tensor, channels: int, least: int) -> None:
    """Refuse an image that is too small or has other channels."""
    if x.ndim != 4 or x.shape[1] != channels or min(x.shape[2:]) < least:
        raise ValueError(
            f"x must have shape (B, {channels}, h, w) with h and w of at least {least}, such as "
            f"(B, {channels}, {7 * least}, {7 * least}), got {tuple(x.shape)}"
        )
