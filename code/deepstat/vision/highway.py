"""Highway layers: skip connections with gates.

Srivastava, Greff and Schmidhuber, *Training Very Deep Networks*, 2015.

Chapter: vision/classic_cnns.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepstat.vision.cost import check_sizes


class Highway(nn.Module):
    r""":math:`\mathbf h' = \mathbf t \odot a(\mathbf z) + (1 - \mathbf t) \odot \mathbf h` with a gate :math:`\mathbf t`.

    Srivastava et al., 2015, equation 3, with ReLU: :math:`\mathbf z = \boldsymbol\Omega\mathbf h + \boldsymbol\beta`
    and the *transform gate* :math:`\mathbf t = \sigma(\boldsymbol\Omega_t \mathbf h + \boldsymbol\beta_t)`. With
    :math:`\mathbf t = 0` the layer is the identity, with :math:`\mathbf t = 1` a plain layer.

    Args:
        width: of input and output.
        bias: where all of :math:`\boldsymbol\beta_t` start; negative, so that the layer begins near the identity.

    Shapes: ``(B, width)``, unchanged.

    Raises:
        ValueError: if ``width`` is no positive integer.
    """

    def __init__(self, width: int, bias: float = -2.0):
        super().__init__()
        check_sizes(width=width)
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.kaiming_normal_(self.transform.weight, nonlinearity="relu")
        nn.init.zeros_(self.transform.bias)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, h: Float[Tensor, "B width"]) -> Float[Tensor, "B width"]:
        t = torch.sigmoid(self.gate(h))
        return t * torch.relu(self.transform(h)) + (1 - t) * h


class HighwayNetwork(nn.Module):
    """A linear layer, a stack of highway layers of one width, and a linear layer to the logits.

    Srivastava et al., 2015, section 3.1; their first layer, which changes the width, is plain as here.

    Args:
        inputs: number of covariates.
        width: of the layers.
        depth: number of highway layers.
        classes: number of logits.
        bias: of the gates, see :class:`Highway`.

    Shapes: ``(B, inputs)`` to ``(B, classes)``.

    Raises:
        ValueError: if a size is no positive integer, or the input has another number of columns.
    """

    def __init__(self, inputs: int, width: int, depth: int, classes: int, bias: float = -2.0):
        super().__init__()
        check_sizes(inputs=inputs, width=width, depth=depth, classes=classes)
        self.first = nn.Linear(inputs, width)
        self.layers = nn.Sequential(*(Highway(width, bias) for _ in range(depth)))
        self.last = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "B inputs"]) -> Float[Tensor, "B classes"]:
        if x.ndim != 2 or x.shape[1] != self.first.in_features:
            raise ValueError(f"x must have shape (B, {self.first.in_features}), got {tuple(x.shape)}")
        return self.last(self.layers(torch.relu(self.first(x))))
