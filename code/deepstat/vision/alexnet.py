"""AlexNet, in the form of the paper and in the one-tower form of most libraries.

Chapter: vision/classic_cnns.
"""

from jaxtyping import Float
from torch import Tensor, nn

from deepstat.foundations.normalization import local_response_norm
from deepstat.vision.cost import check_sizes, require_final_map


class LocalResponseNorm(nn.Module):
    """:func:`deepstat.foundations.normalization.local_response_norm` with AlexNet's constants, as a layer."""

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return local_response_norm(x)


class AlexNet(nn.Module):
    """The network of Krizhevsky, Sutskever and Hinton, 2012, section 3.5.

    Five convolutions and three fully connected layers. The second, fourth and fifth convolution are split into two
    groups, one on each of the paper's two GPUs. The order is convolution, ReLU, normalization, pooling. The paper
    says that images have 224 × 224 pixels; its output sizes need 227 × 227 without padding.

    Args:
        filters: of the five convolutions, even from the second on (see ``groups``).
        units: of the two hidden fully connected layers.
        classes: number of logits.
        groups: 2 as published, or 1: every filter sees all channels.
        dropout: share of inputs of the two hidden layers that are set to zero in training.

    Shapes: ``(B, 3, 227, 227)``, or another size that leaves 6 × 6 positions, to ``(B, classes)``.

    Raises:
        ValueError: if a number is out of range or the image has another size or other channels.
    """

    def __init__(
        self,
        filters: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256),
        units: int = 4096,
        classes: int = 1000,
        groups: int = 2,
        dropout: float = 0.5,
    ):
        super().__init__()
        a, b, c, d, e = filters
        check_sizes(units=units, classes=classes, groups=groups)
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, stride=4), nn.ReLU(), LocalResponseNorm(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(a, b, 5, padding=2, groups=groups), nn.ReLU(), LocalResponseNorm(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1, groups=groups), nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1, groups=groups), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.classifier = classifier(36 * e, units, classes, dropout)

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B classes"]:
        require_final_map(self.features, x, channels=3, positions=6, good=227)
        return self.classifier(self.features(x).flatten(1))


class OneTowerAlexNet(nn.Module):
    """What most libraries call AlexNet: one tower, no groups, no normalization, padding in the first convolution.

    After Krizhevsky, *One Weird Trick for Parallelizing Convolutional Neural Networks*, 2014, with the numbers of
    filters that torchvision uses. Arguments as for :class:`AlexNet`.

    Shapes: ``(B, 3, 224, 224)``, or another size that leaves 6 × 6 positions, to ``(B, classes)``.

    Raises:
        ValueError: as :class:`AlexNet`.
    """

    def __init__(
        self,
        filters: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256),
        units: int = 4096,
        classes: int = 1000,
        dropout: float = 0.5,
    ):
        super().__init__()
        a, b, c, d, e = filters
        check_sizes(units=units, classes=classes)
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.classifier = classifier(36 * e, units, classes, dropout)

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B classes"]:
        require_final_map(self.features, x, channels=3, positions=6, good=224)
        return self.classifier(self.features(x).flatten(1))


def classifier(inputs: int, units: int, classes: int, dropout: float) -> nn.Sequential:
    """Three fully connected layers, dropout on the inputs of the first two."""
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(inputs, units), nn.ReLU(),
        nn.Dropout(dropout), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes),
    )  # fmt: skip
