"""The VGG networks: stacks of 3 × 3 convolutions.

Chapter: vision/classic_cnns.
"""

from jaxtyping import Float
from torch import Tensor, nn

from deepstat.vision.cost import check_sizes, require_final_map

# Channels of the 3 × 3 convolutions, in units of 64; "M" is max pooling. Simonyan and Zisserman, 2015, table 1.
LAYERS = {
    11: (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"),  # A
    13: (1, 1, "M", 2, 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"),  # B
    16: (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"),  # D
    19: (1, 1, "M", 2, 2, "M", 4, 4, 4, 4, "M", 8, 8, 8, 8, "M", 8, 8, 8, 8, "M"),  # E
}


class VGG(nn.Module):
    """VGG-11, -13, -16 or -19: configurations A, B, D and E of Simonyan and Zisserman, 2015.

    Convolutions have stride and padding 1, so that only pooling changes height and width. All have biases. Weights
    start as in :func:`torch.nn.init.kaiming_normal_`, biases at 0; the paper started the deep ones from the trained
    shallow one.

    Args:
        depth: 11, 13, 16 or 19: layers with weights.
        classes: number of logits.
        width: channels of the first convolution; 64 as published.
        units: of the two hidden fully connected layers.
        dropout: share of their outputs that are set to zero in training.

    Shapes: ``(B, 3, 224, 224)``, or another size that leaves 7 × 7 positions, to ``(B, classes)``.

    Raises:
        ValueError: if ``depth`` is another, a number is out of range, or the image has another size or other channels.
    """

    def __init__(
        self, depth: int, classes: int = 1000, width: int = 64, units: int = 4096, dropout: float = 0.5
    ):
        super().__init__()
        if depth not in LAYERS:
            raise ValueError(f"depth must be one of {', '.join(map(str, LAYERS))}, got {depth}")
        check_sizes(classes=classes, width=width, units=units)
        layers, channels = [], 3
        for entry in LAYERS[depth]:
            if entry == "M":
                layers.append(nn.MaxPool2d(2, stride=2))
            else:
                layers += [nn.Conv2d(channels, entry * width, 3, padding=1), nn.ReLU()]
                channels = entry * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(49 * channels, units), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(units, units), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(units, classes),
        )  # fmt: skip
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B classes"]:
        require_final_map(self.features, x, channels=3, positions=7, good=224)
        return self.classifier(self.features(x).flatten(1))
