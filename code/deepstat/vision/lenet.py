r"""LeNet-5, in the form that is in use today, and what the original of 1998 counts.

Chapter: vision/convolution.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

# PyTorch's own layers, which the tests hold against those of this package: they train several times as fast.
POOLS = {"max": functional.max_pool2d, "average": functional.avg_pool2d}
# Which maps of S2 feed each map of C3: LeCun et al., 1998, table I.
C3_INPUTS = (
    *(tuple((i + j) % 6 for j in range(3)) for i in range(6)),  # three neighbours
    *(tuple((i + j) % 6 for j in range(4)) for i in range(6)),  # four neighbours
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class LeNet5(nn.Module):
    r"""Two convolutional layers with pooling, then a dense network with two hidden layers.

    After LeCun, Bottou, Bengio and Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998, section
    II.B: 5 × 5 kernels, 6 and 16 feature maps, then 120 and 84 units. The original differs: pooling has a trained
    coefficient and bias for each map and a sigmoid, each map of C3 sees only some of the six maps of S2, activations
    are :math:`1.7159 \tanh(2z/3)`, and the output is a squared distance to a code that was drawn by hand for each
    class. Here the output holds logits.

    Args:
        classes: number of outputs.
        activation: :math:`a`, a function of a tensor, entry by entry.
        pool: ``"max"`` or ``"average"``, of 2 × 2 pixels.

    Shapes: ``(batch, 1, 32, 32) -> (batch, classes)``.

    Raises:
        TypeError: if ``classes`` is not an integer or ``activation`` is not callable.
        ValueError: if ``classes`` is below one, ``pool`` is unknown, or the images are not 32 × 32 pixels of one
            channel.
    """

    def __init__(self, classes: int = 10, activation: Callable[[Tensor], Tensor] = torch.relu, pool: str = "max"):
        super().__init__()
        if type(classes) is not int:
            raise TypeError(f"classes must be an integer, got {type(classes).__name__}")
        if classes < 1:
            raise ValueError(f"classes must be at least 1, got {classes}")
        if not callable(activation):
            raise TypeError(f"activation must be a function, got {type(activation).__name__}")
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
        self.activation, self.pool = activation, POOLS[pool]
        self.c1 = nn.Conv2d(1, 6, 5)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.c5 = nn.Linear(16 * 5 * 5, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, classes)

    def maps(self, x: Float[Tensor, "batch 1 32 32"]) -> dict[str, Tensor]:
        """The feature maps of the convolutional part, by the paper's names C1, S2, C3 and S4."""
        if x.ndim != 4 or x.shape[1:] != (1, 32, 32):
            raise ValueError(f"x must have shape (batch, 1, 32, 32), got {tuple(x.shape)}")
        c1 = self.activation(self.c1(x))  # (batch, 6, 28, 28)
        s2 = self.pool(c1, 2)  # (batch, 6, 14, 14)
        c3 = self.activation(self.c3(s2))  # (batch, 16, 10, 10)
        return {"C1": c1, "S2": s2, "C3": c3, "S4": self.pool(c3, 2)}

    def forward(self, x: Float[Tensor, "batch 1 32 32"]) -> Float[Tensor, "batch classes"]:
        h = self.maps(x)["S4"].flatten(1)  # (batch, 400)
        h = self.activation(self.c5(h))
        h = self.activation(self.f6(h))
        return self.output(h)


def on_canvas(x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 32 32"]:
    """Grey images enlarged to 24 × 24 pixels in the middle of 32 × 32, on LeNet's scale.

    Bilinear interpolation, then a margin of four pixels, then ``1.275 * x - 0.1``: no ink is -0.1 and full ink
    1.175, as in LeCun et al., 1998, section II.B.

    Args:
        x: share of ink in [0, 1], shape ``(batch, 1, height, width)``.

    Returns:
        Shape ``(batch, 1, 32, 32)``.

    Raises:
        ValueError: if ``x`` has another shape.
    """
    if x.ndim != 4 or x.shape[1] != 1:
        raise ValueError(f"x must have shape (batch, 1, height, width), got {tuple(x.shape)}")
    enlarged = functional.interpolate(x, size=(24, 24), mode="bilinear", align_corners=False)
    return 1.275 * functional.pad(enlarged, (4, 4, 4, 4)) - 0.1


def original_counts() -> dict[str, tuple[int, int]]:
    """Trained parameters and connections of each layer of the original LeNet-5, a bias counted as a connection.

    LeCun et al., 1998, section II.B. The 10 × 84 numbers of the output's codes are fixed, so they are connections
    only.

    Returns:
        ``{layer: (parameters, connections)}``, from C1 to the output.
    """
    links = sum(len(inputs) for inputs in C3_INPUTS)  # 60 of 96 possible kernels
    c1, c3 = 6 * (5 * 5 + 1), links * 5 * 5 + 16
    return {
        "C1": (c1, c1 * 28 * 28),
        "S2": (6 * 2, 6 * (4 + 1) * 14 * 14),
        "C3": (c3, c3 * 10 * 10),
        "S4": (16 * 2, 16 * (4 + 1) * 5 * 5),
        "C5": (120 * (400 + 1), 120 * (400 + 1)),
        "F6": (84 * (120 + 1), 84 * (120 + 1)),
        "output": (0, 10 * 84),
    }
