"""GoogLeNet, as published and in the widely used variant, and its inception module.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich, *Going Deeper with Convolutions*, 2015.

Chapter: vision/classic_cnns.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deepstat.vision.alexnet import LocalResponseNorm
from deepstat.vision.cost import check_sizes


class Convolution(nn.Sequential):
    """A convolution and a ReLU, with a bias, or with batch normalization between them in its place."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1, normalize: bool = False):
        convolution = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=not normalize)
        norm = [nn.BatchNorm2d(filters, eps=1e-3)] if normalize else []
        super().__init__(convolution, *norm, nn.ReLU())


class Inception(nn.Module):
    """Four paths side by side, concatenated along the channels.

    Szegedy et al., 2015, figure 2(b): a 1 × 1 convolution; a 1 × 1 and a 3 × 3 convolution; a 1 × 1 and a 5 × 5
    convolution; 3 × 3 max pooling and a 1 × 1 convolution. Strides are 1 and height and width stay as they are.

    Args:
        channels: of the input.
        one: filters of the first path.
        three: filters of the second path: of its reduction and of its 3 × 3 convolution.
        five: the same for the third path.
        pool: filters after the pooling.
        normalize: batch normalization in place of biases.
        kernel: of the third path, 5 as published; 3 in the variant.

    Shapes: ``(B, channels, h, w)`` to ``(B, one + three[1] + five[1] + pool, h, w)``.
    """

    def __init__(
        self,
        channels: int,
        one: int,
        three: tuple[int, int],
        five: tuple[int, int],
        pool: int,
        normalize: bool = False,
        kernel: int = 5,
    ):
        super().__init__()
        self.one = Convolution(channels, one, 1, normalize=normalize)
        self.three = nn.Sequential(
            Convolution(channels, three[0], 1, normalize=normalize),
            Convolution(three[0], three[1], 3, normalize=normalize),
        )
        self.five = nn.Sequential(
            Convolution(channels, five[0], 1, normalize=normalize),
            Convolution(five[0], five[1], kernel, normalize=normalize),
        )
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), Convolution(channels, pool, 1, normalize=normalize)
        )

    def forward(self, x: Float[Tensor, "B C_in h w"]) -> Float[Tensor, "B C_out h w"]:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


# Filters of the nine inception modules, named and ordered as in Szegedy et al., 2015, table 1.
MODULES = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


class Logits(NamedTuple):
    """What GoogLeNet returns in training: its logits, and those of the auxiliary classifiers after 4a and 4d."""

    main: Float[Tensor, "B classes"]
    first: Float[Tensor, "B classes"]
    second: Float[Tensor, "B classes"]


class GoogLeNet(nn.Module):
    """The network of Szegedy et al., 2015, table 1.

    Max pooling rounds sizes up, as the sizes in the paper's table need. The paper does not say where its weights start;
    here they have He's normal distribution, without which the signal fades in the published form.

    Args:
        classes: number of logits.
        auxiliary: whether there are auxiliary classifiers, which are used in training only.
        variant: False: as published, with 5 × 5 convolutions, biases and local response normalization. True: as in
            most libraries, with batch normalization, and with 3 × 3 in place of 5 × 5.
        share: of the published number of filters, at least 1/16 for a narrow network; 1 as published.
        units: hidden units of an auxiliary classifier.

    Shapes: ``(B, 3, h, w)`` to ``(B, classes)``; in training with auxiliary classifiers to :class:`Logits`. Height and
    width are at least 32 without auxiliary classifiers; with them 224, or another size that leaves them 4 × 4
    positions.

    Raises:
        ValueError: if a number is out of range or the image has another size or other channels.
    """

    def __init__(
        self,
        classes: int = 1000,
        auxiliary: bool = True,
        variant: bool = False,
        share: float = 1.0,
        units: int = 1024,
    ):
        super().__init__()
        check_sizes(classes=classes, units=units)
        if not 1 / 16 <= share <= 1:
            raise ValueError(f"share must be between 1/16 and 1, got {share}")
        kernel = 3 if variant else 5

        def n(filters: int) -> int:
            return max(1, round(share * filters))

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        norm = [] if variant else [LocalResponseNorm()]
        self.stem = nn.Sequential(
            Convolution(3, n(64), 7, stride=2, normalize=variant), pool(), *norm,
            Convolution(n(64), n(64), 1, normalize=variant),
            Convolution(n(64), n(192), 3, normalize=variant), *norm, pool(),
        )  # fmt: skip
        channels, self.inception, entered = n(192), nn.ModuleDict(), {}
        for name, (one, three, five, last) in MODULES.items():
            one, three, five, last = n(one), tuple(map(n, three)), tuple(map(n, five)), n(last)
            entered[name] = channels
            self.inception[name] = Inception(channels, one, three, five, last, variant, kernel)
            channels = one + three[1] + five[1] + last
        self.pool3, self.pool4 = pool(), pool()
        self.average, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.4)
        self.linear = nn.Linear(channels, classes)
        self.auxiliary = nn.ModuleList()
        if auxiliary:
            for place in ("4b", "4e"):  # the modules that follow 4a and 4d
                self.auxiliary.append(Auxiliary(entered[place], n(128), units, classes, variant))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B classes"] | Logits:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 32:
            raise ValueError(
                f"x must have shape (B, 3, h, w) with h and w of at least 32, such as (B, 3, 224, 224), "
                f"got {tuple(x.shape)}"
            )
        h, extra = self.stem(x), []
        for name, module in self.inception.items():
            if name == "4a":
                h = self.pool3(h)
            elif name == "5a":
                h = self.pool4(h)
            h = module(h)
            if self.training and len(self.auxiliary) and name in ("4a", "4d"):
                extra.append(self.auxiliary[len(extra)](h))
        logits = self.linear(self.dropout(self.average(h).flatten(1)))
        return Logits(logits, *extra) if extra else logits


class Auxiliary(nn.Module):
    """Average pooling to 4 × 4 positions, a 1 × 1 convolution and two linear layers. Szegedy et al., 2015, section 5.

    Shapes: ``(B, channels, 14, 14)`` to ``(B, classes)``.

    Raises:
        ValueError: if pooling does not leave 4 × 4 positions.
    """

    def __init__(self, channels: int, filters: int, units: int, classes: int, normalize: bool = False):
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.convolution = Convolution(channels, filters, 1, normalize=normalize)
        self.classifier = nn.Sequential(
            nn.Linear(16 * filters, units), nn.ReLU(), nn.Dropout(0.7), nn.Linear(units, classes)
        )

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B classes"]:
        h = self.pool(x)
        if h.shape[2:] != (4, 4):
            raise ValueError(
                f"x must leave 4 x 4 positions for the auxiliary classifiers, as images of 224 x 224 pixels do, "
                f"got {h.shape[2]} x {h.shape[3]}"
            )
        return self.classifier(self.convolution(h).flatten(1))


def loss(
    logits: Float[Tensor, "B classes"] | Logits, y: Int[Tensor, " B"], weight: float = 0.3
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the main classifier plus ``weight`` times those of the auxiliary ones.

    Szegedy et al., 2015, section 5: the weight is 0.3.

    Args:
        logits: what the network returned, in training or in evaluation mode.
        y: classes, shape ``(B,)``.
        weight: of each auxiliary classifier.
    """
    if not isinstance(logits, Logits):
        return cross_entropy(logits, y)
    extra = cross_entropy(logits.first, y) + cross_entropy(logits.second, y)
    return cross_entropy(logits.main, y) + weight * extra
