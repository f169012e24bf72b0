r"""Transfer learning: features estimated on one task, a new head for another; frozen, fine-tuned, or from scratch.

Chapter: vision/training_cnns.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from deepstat.foundations.regularization import Dropout


class SmallCNN(nn.Module):
    r"""Independent small convolutional networks of one shape, side by side: features :math:`g`, and a linear head.

    Each of the convolutions has 3 × 3 kernels, stride 2 and a ReLU; the head is linear in all their outputs. With
    ``members`` above 1 there are so many networks, as groups of the channels: a loss that adds up the members' losses
    trains each as if it were alone, on images of its own.

    Args:
        classes: number of scores, at least 1.
        channels: of the images.
        size: height and width of the images, at least 1.
        widths: channels after each convolution.
        members: number of networks.
        dropout: probability with which a feature is dropped before the head in training.

    Shapes: ``(n, channels, size, size)``, the same images for all, or ``(n, members, channels, size, size)``
    ``-> (n, members, classes)``.

    Raises:
        ValueError: if a number is out of range or the input has another shape.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 1,
        size: int = 8,
        widths: Sequence[int] = (16, 32),
        members: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        sizes = {"classes": classes, "channels": channels, "size": size, "members": members}
        for name, value in (*sizes.items(), *(("widths", width) for width in widths)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.shape, self.members = (channels, size, size), members
        self.widths, self.classes = tuple(widths), classes
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(members * before, members * after, 3, 2, 1, groups=members), nn.ReLU()]
            size = (size + 1) // 2
        self.features = nn.Sequential(*layers)
        self.dropout = Dropout(dropout)
        inputs = widths[-1] * size**2
        self.weight = nn.Parameter(torch.empty(members, inputs, classes).uniform_(-1, 1) * inputs**-0.5)
        self.bias = nn.Parameter(torch.empty(members, 1, classes).uniform_(-1, 1) * inputs**-0.5)

    def represent(self, x: Float[Tensor, "n *rest"]) -> Float[Tensor, "members n inputs"]:
        """The features of each member, in rows."""
        if x.ndim == 4:
            x = x.unsqueeze(1).expand(-1, self.members, *x.shape[1:])
        if x.shape[1:] != (self.members, *self.shape):
            wanted, got = ", ".join(map(str, self.shape)), tuple(x.shape)
            raise ValueError(f"x must have shape (n, {wanted}) or (n, {self.members}, {wanted}), got {got}")
        h = self.features(x.flatten(1, 2))  # (n, members * width, rows, columns)
        return h.unflatten(1, (self.members, -1)).flatten(2).transpose(0, 1)

    def forward(self, x: Float[Tensor, "n *rest"]) -> Float[Tensor, "n members classes"]:
        h = self.dropout(self.represent(x))
        return torch.baddbmm(self.bias, h, self.weight).transpose(0, 1)


def transfer(source: SmallCNN, classes: int, members: int, frozen: bool = False) -> SmallCNN:
    """A network for another task that starts with the features of ``source`` and a random head.

    Args:
        source: a trained network; its members in their order, again and again, give the features.
        classes: of the new task.
        members: number of new networks.
        frozen: whether the features stay as they are; trained further (fine-tuned) if not.

    Returns:
        The network, on the device of ``source``. It shares no memory with ``source``.

    Raises:
        ValueError: if a number is out of range.
    """
    channels, size, _ = source.shape
    model = SmallCNN(classes, channels, size, source.widths, members)
    with torch.no_grad():
        for new, old in zip(model.features.parameters(), source.features.parameters(), strict=True):
            groups = old.unflatten(0, (source.members, -1))
            new.copy_(groups[torch.arange(members) % source.members].flatten(0, 1))
    model.features.requires_grad_(not frozen)
    return model.to(source.weight)


def cross_entropy(scores: Float[Tensor, "n members classes"], target: Int64[Tensor, "n members"]) -> Float[Tensor, ""]:
    """The members' mean losses, added up, so that each is trained as if it were alone.

    Args:
        scores: of a :class:`SmallCNN`.
        target: the class of each member's image.
    """
    return functional.cross_entropy(scores.flatten(0, 1), target.flatten()) * scores.shape[1]
