"""The U-Net: an encoder, a decoder, and skips that join them level by level.

Chapter: vision/segmentation.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class UNet(nn.Module):
    r"""U-Net, as published or padded.

    Ronneberger, Fischer and Brox, *U-Net: Convolutional Networks for Biomedical Image Segmentation*, 2015, figure 1.
    Level :math:`k = 0, \dots, K` of the encoder has two 3×3 convolutions with ReLU and :math:`2^k C` channels, then
    2×2 max pooling; level :math:`k` of the decoder has a 2×2 transposed convolution that halves the channels, the
    concatenation with the encoder's maps, cropped to the same size, and again two 3×3 convolutions. A 1×1 convolution
    gives the logits. Weights start normal with variance 2 / fan-in, biases at 0, as in the paper. Left out: its dropout
    at the end of the encoder.

    Args:
        in_channels: channels of the image.
        classes: number of classes, one logit each.
        width: :math:`C`, channels of level 0.
        depth: :math:`K`, number of down-samplings.
        padded: whether the 3×3 convolutions pad with zeros, so that the output is as large as the input.
        skips: whether the decoder sees the encoder's maps; without, a plain encoder-decoder.

    Shapes: ``(batch, in_channels, height, width) -> (batch, classes, height - 2 m, width - 2 m)``, where the margin
    ``m`` is 0 if padded.

    Raises:
        ValueError: if a number is below 1, the image has other channels, or a size that the network cannot take; the
            message names the nearest one that it can.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        width: int = 64,
        depth: int = 4,
        padded: bool = False,
        skips: bool = True,
    ):
        super().__init__()
        numbers = {"in_channels": in_channels, "classes": classes, "width": width, "depth": depth}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.in_channels, self.padded, self.skips = in_channels, padded, skips
        channels = [width * 2**k for k in range(depth + 1)]
        inputs = [in_channels, *channels[:-1]]
        self.encoder = nn.ModuleList(double_conv(i, o, padded) for i, o in zip(inputs, channels, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in channels[:-1])
        joined = 2 if skips else 1
        self.decoder = nn.ModuleList(double_conv(joined * c, c, padded) for c in channels[:-1])
        self.head = nn.Conv2d(width, classes, 1)
        self.apply(he_start)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes h w"]:
        self.check(x)
        kept = []
        for level, convolutions in enumerate(self.encoder):
            x = convolutions(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for level in reversed(range(len(self.up))):
            below, x = x, self.up[level](x)
            if self.skips:
                x = torch.cat([crop(self.gate(level, kept[level], below), x), x], dim=1)
            x = self.decoder[level](x)
        return self.head(x)

    def gate(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """What a skip passes on: here everything."""
        return skip

    def check(self, x: Tensor) -> None:
        """Refuse an image that the network cannot take."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must have shape (batch, {self.in_channels}, height, width), got {tuple(x.shape)}")
        depth = len(self.up)
        for name, size in (("height", x.shape[2]), ("width", x.shape[3])):
            if output_size(size, depth, self.padded) is None:
                near = nearest_size(size, depth, self.padded)
                raise ValueError(f"{name} must fit {depth} down-samplings, such as {near}, got {size}")

    @property
    def margin(self) -> int:
        """Pixels that the output is short of at each side of the input."""
        return 0 if self.padded else 3 * 2 ** (len(self.up) + 1) - 4

    @property
    def stride(self) -> int:
        """The shift of the input, in pixels, under which the output shifts with it."""
        return 2 ** len(self.up)


def double_conv(inputs: int, outputs: int, padded: bool) -> nn.Sequential:
    """Two 3×3 convolutions, each with ReLU."""
    padding = 1 if padded else 0
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=padding), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=padding), nn.ReLU(),
    )  # fmt: skip


def crop(maps: Tensor, to: Tensor) -> Tensor:
    """The centre of ``maps`` with the spatial size of ``to``, in two or three dimensions."""
    for axis in range(2, maps.ndim):
        extra = maps.shape[axis] - to.shape[axis]
        maps = maps.narrow(axis, extra // 2, to.shape[axis])
    return maps


def he_start(layer: nn.Module) -> None:
    """Normal weights of variance 2 / fan-in and zero biases; each output of a 2×2 up-convolution has one tap a channel."""
    if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        transposed = isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
        fan_in = layer.in_channels if transposed else layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def map_sizes(size: int, depth: int = 4, padded: bool = False) -> list[tuple[str, int]] | None:
    """Heights of the maps of a U-Net in the order in which they arise, or None if ``size`` does not fit.

    Args:
        size: height (or width) of the image.
        depth: number of down-samplings.
        padded: whether the 3×3 convolutions are padded.

    Returns:
        Pairs of a layer, such as ``"encoder 0 conv 1"``, and the height of its output.
    """
    loss, found = 0 if padded else 2, []
    for level in range(depth):
        found += [(f"encoder {level} conv 1", size - loss), (f"encoder {level} conv 2", size - 2 * loss)]
        size -= 2 * loss
        if size < 2 or size % 2:
            return None
        size //= 2
        found.append((f"encoder {level} pool", size))
    found += [("bottom conv 1", size - loss), ("bottom conv 2", size - 2 * loss)]
    size -= 2 * loss
    for level in reversed(range(depth)):
        if size < 1:
            return None
        found += [(f"decoder {level} up", 2 * size), (f"decoder {level} conv 1", 2 * size - loss)]
        size = 2 * size - 2 * loss
        found.append((f"decoder {level} conv 2", size))
    return found if size >= 1 else None


def output_size(size: int, depth: int = 4, padded: bool = False) -> int | None:
    """Height of the output for an image of height ``size``, or None if it does not fit."""
    sizes = map_sizes(size, depth, padded)
    return sizes[-1][1] if sizes else None


def nearest_size(size: int, depth: int = 4, padded: bool = False) -> int:
    """The nearest height that a U-Net takes; of two equally near ones the larger."""
    for distance in range(max(size, 0) + 2 ** (depth + 4)):
        for candidate in (size + distance, size - distance):
            if output_size(candidate, depth, padded) is not None:
                return candidate
    raise AssertionError("every range of 2^depth sizes holds one that fits")
