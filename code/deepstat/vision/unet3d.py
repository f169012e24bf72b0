"""The 3D U-Net, and its loss for volumes in which only some slices are annotated.

Chapter: vision/segmentation.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.foundations import losses
from deepstat.vision.unet import crop, he_start, nearest_size, output_size

UNLABELLED = -1


class UNet3d(nn.Module):
    r"""3D U-Net, as published or padded.

    Çiçek et al., *3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation*, 2016, figure 2. Three
    down-samplings; at level :math:`k` two 3×3×3 convolutions with :math:`2^k C` and :math:`2^{k+1} C` channels, so
    that the number is doubled *before* pooling; up-convolutions keep the number of channels and have no bias; batch
    normalization with scale and shift before each ReLU. The paper normalizes with the statistics of the volume at hand
    when it predicts too, having one volume a batch; here evaluation uses running averages, as usual.

    Args:
        in_channels: channels of the volume; the paper has 3.
        classes: number of classes, one logit each; the paper has 3.
        width: :math:`C`, channels after the first convolution; the paper has 32.
        padded: whether the 3×3×3 convolutions pad with zeros, so that the output is as large as the input.

    Shapes: ``(batch, in_channels, d, h, w) -> (batch, classes, d', h', w')``, 88 fewer along each axis if not padded.

    Raises:
        ValueError: if a number is below 1, the volume has other channels, or a size that the network cannot take; the
            message names the nearest one that it can.
    """

    depth = 3

    def __init__(self, in_channels: int = 3, classes: int = 3, width: int = 32, padded: bool = False):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("classes", classes), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.in_channels, self.padded = in_channels, padded
        channels = [2 * width * 2**k for k in range(self.depth + 1)]  # after each level
        inputs = [in_channels, *channels[:-1]]
        self.encoder = nn.ModuleList(
            _double_conv(i, o // 2, o, padded) for i, o in zip(inputs, channels, strict=True)
        )
        above = list(zip(channels[:-1], channels[1:], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose3d(o, o, 2, stride=2, bias=False) for _, o in above)
        self.decoder = nn.ModuleList(_double_conv(c + o, c, c, padded) for c, o in above)
        self.head = nn.Conv3d(channels[0], classes, 1)
        self.apply(he_start)

    def forward(
        self, x: Float[Tensor, "batch channels depth height width"]
    ) -> Float[Tensor, "batch classes d h w"]:
        self.check(x)
        kept = []
        for level, convolutions in enumerate(self.encoder):
            x = convolutions(x if level == 0 else nn.functional.max_pool3d(x, 2))
            kept.append(x)
        for level in reversed(range(self.depth)):
            x = self.up[level](x)
            x = self.decoder[level](torch.cat([crop(kept[level], x), x], dim=1))
        return self.head(x)

    def check(self, x: Tensor) -> None:
        """Refuse a volume that the network cannot take."""
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            expected = f"(batch, {self.in_channels}, depth, height, width)"
            raise ValueError(f"x must have shape {expected}, got {tuple(x.shape)}")
        for name, size in zip(("depth", "height", "width"), x.shape[2:], strict=True):
            if output_size(size, self.depth, self.padded) is None:
                near = nearest_size(size, self.depth, self.padded)
                raise ValueError(f"{name} must fit {self.depth} down-samplings, such as {near}, got {size}")


def _double_conv(inputs: int, first: int, second: int, padded: bool) -> nn.Sequential:
    """Two 3×3×3 convolutions, each with batch normalization and ReLU."""
    padding = 1 if padded else 0
    return nn.Sequential(
        nn.Conv3d(inputs, first, 3, padding=padding, bias=False), nn.BatchNorm3d(first), nn.ReLU(),
        nn.Conv3d(first, second, 3, padding=padding, bias=False), nn.BatchNorm3d(second), nn.ReLU(),
    )  # fmt: skip


def sparse_cross_entropy(
    logits: Float[Tensor, "batch classes *space"],
    labels: Int64[Tensor, "batch *space"],
    weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    r"""Mean negative log-likelihood of the voxels that have a label.

    Çiçek et al., 2016, sections 2 and 3.2: voxels without a label get weight zero, classes may be weighted.
    :math:`\sum_j w_{y_j} \ell(\mathbf z_j, y_j) / \sum_j w_{y_j}` over labelled :math:`j`.

    Args:
        logits: shape ``(batch, classes, *space)``.
        labels: the class, or -1 where there is no label; shape ``(batch, *space)``.
        weights: one for each class, at least 0; 1 if not given.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: if shapes do not fit, a label is out of range, or (outside of ``torch.compile``) nothing is labelled.
    """
    if logits.ndim < 2 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        expected = (logits.shape[0], *logits.shape[2:])
        raise ValueError(f"labels must have shape {expected}, got {tuple(labels.shape)}")
    if weights is not None and weights.shape != logits.shape[1:2]:
        raise ValueError(f"weights must have shape ({logits.shape[1]},), got {tuple(weights.shape)}")
    known = labels != UNLABELLED
    if not torch.compiler.is_compiling() and not known.any():
        raise ValueError("labels must have a labelled voxel, got none")
    y = labels.where(known, 0)
    weight = known.to(logits.dtype) if weights is None else known * weights.to(logits)[y]
    return (weight * losses.categorical_nll(logits.movedim(1, -1), y)).sum() / weight.sum()
