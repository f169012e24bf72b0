"""The attention U-Net: skips weighted pixel by pixel by what the level below has seen.

Chapter: vision/segmentation.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepstat.vision.unet import UNet, he_start


class AttentionGate(nn.Module):
    r"""Additive attention of one skip.

    Oktay et al., *Attention U-Net: Learning Where to Look for the Pancreas*, 2018, equations (1) and (2):
    :math:`\alpha = \sigma(\boldsymbol\psi^\top a(\mathbf W_x\mathbf x + \mathbf W_g\mathbf g + \mathbf b_g) + b_\psi)`
    at each position of the coarser grid, with :math:`a` the ReLU, interpolated to the finer one; the skip passes on
    :math:`\alpha\mathbf x`. The paper works in three dimensions; its authors' code has a further 1×1×1 convolution with
    batch normalization after each gate, which is left out here.

    Args:
        channels: of the skip :math:`\mathbf x`.
        below: channels of the gating signal :math:`\mathbf g`, on a grid that is half as fine.
        hidden: number of intermediate channels.

    Shapes: ``(batch, channels, 2h, 2w), (batch, below, h, w) -> (batch, channels, 2h, 2w)``.

    Raises:
        ValueError: if a number is below 1 or the grids do not fit.
    """

    def __init__(self, channels: int, below: int, hidden: int):
        super().__init__()
        for name, value in (("channels", channels), ("below", below), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.of_skip = nn.Conv2d(channels, hidden, 2, stride=2, bias=False)
        self.of_gate = nn.Conv2d(below, hidden, 1)
        self.score = nn.Conv2d(hidden, 1, 1)
        self.apply(he_start)

    def forward(
        self, skip: Float[Tensor, "batch channels H W"], gate: Float[Tensor, "batch below h w"]
    ) -> Float[Tensor, "batch channels H W"]:
        return self.weights(skip, gate) * skip

    def weights(
        self, skip: Float[Tensor, "batch channels H W"], gate: Float[Tensor, "batch below h w"]
    ) -> Float[Tensor, "batch 1 H W"]:
        r"""The coefficients :math:`\alpha`, between 0 and 1, on the skip's grid."""
        if skip.shape[2:] != (2 * gate.shape[2], 2 * gate.shape[3]):
            raise ValueError(f"skip must be twice as high and wide as gate, {tuple(gate.shape[2:])}, "
                             f"got {tuple(skip.shape[2:])}")  # fmt: skip
        hidden = torch.relu(self.of_skip(skip) + self.of_gate(gate))
        coarse = torch.sigmoid(self.score(hidden))
        return nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)


class AttentionUNet(UNet):
    """Padded U-Net with an attention gate in every skip but the one of the full resolution, as in the paper.

    Args:
        in_channels, classes, width, depth: as of :class:`UNet`.

    Shapes: ``(batch, in_channels, height, width) -> (batch, classes, height, width)``.

    Raises:
        ValueError: as :class:`UNet`.
    """

    def __init__(self, in_channels: int = 1, classes: int = 2, width: int = 64, depth: int = 4):
        super().__init__(in_channels, classes, width, depth, padded=True)
        channels = [width * 2**k for k in range(1, depth)]
        self.gates = nn.ModuleList(AttentionGate(c, 2 * c, c) for c in channels)

    def gate(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        return skip if level == 0 else self.gates[level - 1](skip, below)
