"""Up-sampling of feature maps, and the pooling that max-unpooling needs: each operator by its definition.

Chapter: vision/segmentation.
"""

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

Maps = Shaped[Tensor, "batch channels height width"]
FloatMaps = Float[Tensor, "batch channels height width"]


def max_pool_with_indices(
    x: FloatMaps, factor: int = 2
) -> tuple[Float[Tensor, "batch channels h w"], Int64[Tensor, "batch channels h w"]]:
    """Max pooling over disjoint windows, and where each maximum stood.

    Args:
        x: feature maps, shape ``(batch, channels, height, width)``.
        factor: height and width of a window, and its stride.

    Returns:
        The maxima, and their places: ``row * width + column`` of the input, as in PyTorch. Of equal values the first.

    Raises:
        ValueError: if ``factor`` is below 1, or does not divide height and width.
    """
    batch, channels, height, width = _check(x, factor)
    if height % factor or width % factor:
        near = f"{_multiple(height, factor)} x {_multiple(width, factor)}"
        raise ValueError(f"x must have height and width divisible by {factor}, such as {near}, got {height} x {width}")
    h, w = height // factor, width // factor
    windows = x.reshape(batch, channels, h, factor, w, factor).transpose(3, 4).flatten(4)  # (..., h, w, factor^2)
    values, within = windows.max(-1)
    rows = factor * torch.arange(h, device=x.device)[:, None] + within // factor
    columns = factor * torch.arange(w, device=x.device) + within % factor
    return values, rows * width + columns


def max_unpool(
    x: FloatMaps, indices: Int64[Tensor, "batch channels height width"], factor: int = 2
) -> Float[Tensor, "batch channels H W"]:
    """Put each value where the maximum of its window stood, and zeros elsewhere.

    Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, 2014, section 2.1.

    Args:
        x: feature maps, shape ``(batch, channels, height, width)``.
        indices: of :func:`max_pool_with_indices`, of the same shape.
        factor: of that pooling.

    Returns:
        Maps of shape ``(batch, channels, factor * height, factor * width)``.

    Raises:
        ValueError: if the shapes differ or ``factor`` is below 1.
    """
    batch, channels, height, width = _check(x, factor)
    if indices.shape != x.shape:
        raise ValueError(f"indices must have x's shape {tuple(x.shape)}, got {tuple(indices.shape)}")
    out = x.new_zeros(batch, channels, factor * height * factor * width)
    out = out.scatter(2, indices.flatten(2), x.flatten(2))
    return out.reshape(batch, channels, factor * height, factor * width)


def fixed_unpool(x: Maps, factor: int = 2) -> Shaped[Tensor, "batch channels H W"]:
    """Put each value in the top left corner of its window, and zeros elsewhere.

    Args:
        x: feature maps, shape ``(batch, channels, height, width)``.
        factor: height and width of a window.

    Returns:
        Maps of shape ``(batch, channels, factor * height, factor * width)``.

    Raises:
        ValueError: if ``factor`` is below 1.
    """
    batch, channels, height, width = _check(x, factor)
    out = x.new_zeros(batch, channels, height, factor, width, factor)
    out[:, :, :, 0, :, 0] = x
    return out.reshape(batch, channels, factor * height, factor * width)


def nearest(x: Maps, factor: int = 2) -> Shaped[Tensor, "batch channels H W"]:
    """Repeat each value over its window.

    Args, returns, raises: as :func:`fixed_unpool`.
    """
    _check(x, factor)
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def bilinear(x: FloatMaps, factor: int = 2) -> Float[Tensor, "batch channels H W"]:
    r"""Linear interpolation along rows and along columns: :math:`\mathbf A_H \mathbf X \mathbf A_W^\top`.

    Pixels are squares and values stand at their centres, as with PyTorch's ``align_corners=False``.

    Args, returns, raises: as :func:`fixed_unpool`.
    """
    _, _, height, width = _check(x, factor)
    down = interpolation_matrix(height, factor).to(x)
    across = interpolation_matrix(width, factor).to(x)
    return down @ x @ across.mT


def interpolation_matrix(size: int, factor: int) -> Float[Tensor, "new size"]:
    """The matrix that interpolates a sequence linearly at ``factor`` times as many places.

    New pixel ``i`` has its centre at ``(i + 1/2) / factor - 1/2`` in old pixels; beyond the outermost centres the
    sequence is continued as a constant.

    Args:
        size: number of values, at least 1.
        factor: at least 1.

    Returns:
        Weights in float64, shape ``(factor * size, size)``; every row sums to 1.

    Raises:
        ValueError: if an argument is below 1.
    """
    for name, value in (("size", size), ("factor", factor)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    centre = (torch.arange(factor * size, dtype=torch.float64) + 0.5) / factor - 0.5
    centre = centre.clamp(0, size - 1)
    return (1 - (centre[:, None] - torch.arange(size)).abs()).clamp(min=0)


def conv_transpose2d(
    x: FloatMaps,
    weight: Float[Tensor, "channels out k m"],
    bias: Float[Tensor, " out"] | None = None,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "batch out H W"]:
    r"""Transposed convolution: each input value stamps its multiple of the kernel, ``stride`` pixels apart, and stamps add.

    :math:`y_{o,\,si + a - p,\,sj + b - p} \mathrel{+}= \sum_c x_{c,i,j}\,w_{c,o,a,b}`; what falls outside is cut off.

    Args:
        x: feature maps, shape ``(batch, channels, height, width)``.
        weight: kernels, shape ``(channels, out, k, m)``, PyTorch's order.
        bias: one number for each output channel.
        stride: :math:`s`, at least 1.
        padding: :math:`p`, rows and columns cut off at each side, at least 0.

    Returns:
        Maps of height ``stride * (height - 1) + k - 2 * padding``, and the same for the width.

    Raises:
        ValueError: if the channels differ, a number is out of range, or nothing would be left.
    """
    batch, channels, height, width = _check(x, stride, "stride")
    if weight.ndim != 4 or weight.shape[0] != channels:
        raise ValueError(f"weight must have shape ({channels}, out, k, m), got {tuple(weight.shape)}")
    _, out, k, m = weight.shape
    tall, wide = stride * (height - 1) + k, stride * (width - 1) + m
    if padding < 0 or 2 * padding >= min(tall, wide):
        raise ValueError(f"padding must be from 0 to {(min(tall, wide) - 1) // 2}, got {padding}")
    stamps = torch.einsum("bchw,cokm->bokmhw", x, weight)
    y = x.new_zeros(batch, out, tall, wide)
    for a in range(k):
        for b in range(m):
            rows = slice(a, a + stride * (height - 1) + 1, stride)
            columns = slice(b, b + stride * (width - 1) + 1, stride)
            y[:, :, rows, columns] += stamps[:, :, a, b]
    y = y[:, :, padding : tall - padding, padding : wide - padding]
    return y if bias is None else y + bias[:, None, None]


def bilinear_kernel(factor: int) -> Float[Tensor, "k k"]:
    """The kernel with which a transposed convolution of stride ``factor`` interpolates bilinearly, away from the border.

    Long, Shelhamer and Darrell, 2015, start their learned up-sampling from it. Height and width are
    ``2 * factor - factor % 2``; the padding that goes with it is ``(factor - factor % 2) / 2`` for even factors,
    ``(factor - 1) / 2`` for odd ones.

    Args:
        factor: at least 1.

    Returns:
        The kernel in float64.

    Raises:
        ValueError: if ``factor`` is below 1.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    k = 2 * factor - factor % 2
    distance = (torch.arange(k, dtype=torch.float64) - (k - 1) / 2).abs()
    tent = 1 - distance / factor
    return tent[:, None] * tent


def _check(x: Tensor, factor: int, name: str = "factor") -> tuple[int, int, int, int]:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x must have shape (batch, channels, height, width), none of them 0, got {tuple(x.shape)}")
    if factor < 1:
        raise ValueError(f"{name} must be at least 1, got {factor}")
    return tuple(x.shape)


def _multiple(size: int, factor: int) -> int:
    return factor * max(1, round(size / factor))
