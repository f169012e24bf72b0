r"""Receptive fields: which pixels a unit of a convolutional network can see, and which it does see.

Chapter: vision/convolution.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from deepstat.vision.convolution import output_size


class Window(NamedTuple):
    """A layer of windows along one axis, convolution or pooling alike: its kernel size, stride and padding."""

    kernel: int
    stride: int = 1
    padding: int = 0


class Field(NamedTuple):
    """The pixels of the input, along one axis without ends, that unit ``i`` of a layer can depend on.

    Args:
        size: how many there are: from ``start + jump * i`` on.
        jump: distance between the fields of neighbours, the product of all strides so far.
        start: the first pixel of the field of unit 0; negative where padding is seen.
    """

    size: int
    jump: int
    start: int


def receptive_fields(layers: Sequence[Window]) -> list[Field]:
    r"""The field of a unit after each layer, by recursion.

    :math:`r_\ell = r_{\ell-1} + (k_\ell - 1)\,j_{\ell-1}`, :math:`j_\ell = s_\ell\,j_{\ell-1}` and
    :math:`t_\ell = t_{\ell-1} - p_\ell\,j_{\ell-1}` for size :math:`r`, jump :math:`j` and start :math:`t`, with
    kernel size :math:`k`, stride :math:`s`, padding :math:`p`, and :math:`r_0 = j_0 = 1`, :math:`t_0 = 0`. The pixels
    have no gaps where no stride but the last exceeds its kernel size; in an image, pixels that no window reaches
    (:math:`(n + 2p - k)/s` with a remainder) are missing.
    Araujo, Norris and Sim, *Computing Receptive Fields of Convolutional Neural Networks*, Distill, 2019.

    Args:
        layers: from the input on.

    Returns:
        One field for each layer.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if there is no layer or a number is out of range.
    """
    if not layers:
        raise ValueError("layers must hold at least one layer, got none")
    field, fields = Field(1, 1, 0), []
    for kernel, stride, padding in layers:
        output_size(kernel, kernel, stride, padding)  # refuses what is no window
        size = field.size + (kernel - 1) * field.jump
        field = Field(size, stride * field.jump, field.start - padding * field.jump)
        fields.append(field)
    return fields


def influence(
    model: Callable[[Tensor], Tensor], x: Float[Tensor, "batch channels height width"], row: int, column: int
) -> Float[Tensor, "height width"]:
    r"""How strongly each pixel moves one unit: :math:`\sum_{n,c} |\partial \sum_o z_{noij} / \partial x_{nchw}|`.

    Luo, Li, Urtasun and Zemel, *Understanding the Effective Receptive Field in Deep Convolutional Neural Networks*,
    2016, look at the same derivative.

    Args:
        model: maps images to feature maps, both ``(batch, channels, height, width)``, no image to another one's map.
        x: the images at which to differentiate.
        row, column: of the unit in the feature maps.

    Returns:
        A number of at least 0 for each pixel, shape ``(height, width)``.

    Raises:
        ValueError: if the model does not return maps, or has no such unit.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = model(x)
        if z.ndim != 4:
            raise ValueError(f"model must return maps (batch, channels, height, width), got {tuple(z.shape)}")
        if not (0 <= row < z.shape[2] and 0 <= column < z.shape[3]):
            raise ValueError(f"row and column must lie in maps of {z.shape[2]} x {z.shape[3]}, got {row} and {column}")
        (gradient,) = torch.autograd.grad(z[:, :, row, column].sum(), x)
    return gradient.abs().sum((0, 1))
