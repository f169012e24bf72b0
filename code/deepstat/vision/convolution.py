r"""Convolution in one and two dimensions, its Fourier route, and the layer without shared weights.

A *convolutional layer* computes a cross-correlation: the kernel is not mirrored. All functions work on any device, in
any float dtype and under ``torch.compile``.

Chapter: vision/convolution.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from deepstat.vision.pooling import Size, windows

Images = Float[Tensor, "batch channels height width"]
Kernels = Float[Tensor, "maps channels k_height k_width"]
Maps = Float[Tensor, "batch maps out_height out_width"]


def convolve(f: Float[Tensor, " n"], g: Float[Tensor, " k"]) -> Float[Tensor, " n_plus_k_minus_1"]:
    r"""The convolution of two finite sequences, :math:`(f * g)(i) = \sum_a f(a)\, g(i - a)`.

    Both are zero outside of their indices :math:`0, \dots, n - 1` and :math:`0, \dots, k - 1`.

    Args:
        f: shape ``(n,)``.
        g: shape ``(k,)``.

    Returns:
        All values that can differ from zero, shape ``(n + k - 1,)``.

    Raises:
        ValueError: if one of them is empty or not one sequence.
    """
    for name, values in (("f", f), ("g", g)):
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(f"{name} must have shape (n,) with n of at least 1, got {tuple(values.shape)}")
    result = torch.zeros(len(f) + len(g) - 1, dtype=torch.result_type(f, g), device=f.device)
    for a in range(len(f)):
        result[a : a + len(g)] += f[a] * g
    return result


def conv2d(
    x: Images, weight: Kernels, bias: Float[Tensor, " maps"] | None = None, stride: Size = 1, padding: Size = 0
) -> Maps:
    r"""The convolutional layer, a cross-correlation summed over channels.

    :math:`z_{oij} = \beta_o + \sum_{c,a,b} \omega_{ocab}\, x_{c,\,si-p+a,\,sj-p+b}`, with ``weight``
    :math:`\omega`, ``bias`` :math:`\beta`, stride :math:`s`, padding :math:`p` with zeros, and indices from 0.

    Args:
        x: images, shape ``(batch, channels, height, width)``.
        weight: one kernel for each feature map and channel, shape ``(maps, channels, k, k)``.
        bias: one constant for each feature map, shape ``(maps,)``; zero if not given.
        stride, padding: as for :func:`deepstat.vision.pooling.windows`.

    Returns:
        Shape ``(batch, maps, height', width')``, where an axis of ``n`` gets ``(n + 2 p - k) // s + 1``.

    Raises:
        TypeError, ValueError: as :func:`~deepstat.vision.pooling.windows`, and if ``weight`` or ``bias`` does not
            fit.
    """
    check_kernels(x, weight, bias)
    patches = windows(x, tuple(weight.shape[2:]), stride, padding)
    z = torch.einsum("nchwab,ocab->nohw", patches, weight)
    return z if bias is None else z + bias[:, None, None]


def conv1d(
    x: Float[Tensor, "batch channels time"],
    weight: Float[Tensor, "maps channels k"],
    bias: Float[Tensor, " maps"] | None = None,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "batch maps out_time"]:
    """The convolutional layer for sequences: images of height 1.

    Args:
        x: sequences, shape ``(batch, channels, time)``.
        weight: shape ``(maps, channels, k)``.
        bias: shape ``(maps,)``; zero if not given.
        stride, padding: as for :func:`conv2d`.

    Returns:
        Shape ``(batch, maps, time')``.

    Raises:
        TypeError, ValueError: as :func:`conv2d`.
    """
    if x.ndim != 3 or weight.ndim != 3:
        raise ValueError(f"x and weight must have three axes, got {tuple(x.shape)} and {tuple(weight.shape)}")
    return conv2d(x.unsqueeze(2), weight.unsqueeze(2), bias, (1, stride), (0, padding)).squeeze(2)


def fourier_conv2d(x: Images, weight: Kernels) -> Maps:
    r"""The layer without bias, stride and padding, by the discrete Fourier transform.

    With :math:`F` the transform over an image's own grid, cross-correlation becomes :math:`F(x)\,\overline{F(w)}`,
    channel by channel, on the circle; the rows and columns where windows wrap around are cut off.

    Args:
        x: images, shape ``(batch, channels, height, width)``.
        weight: shape ``(maps, channels, k, k)``, no larger than the images.

    Returns:
        ``conv2d(x, weight)``, in the dtype of ``x``, computed in single precision at least.

    Raises:
        ValueError: if ``weight`` does not fit.
    """
    check_kernels(x, weight, None)
    grid, kernel = x.shape[2:], weight.shape[2:]
    if kernel[0] > grid[0] or kernel[1] > grid[1]:
        raise ValueError(f"x must be at least {kernel[0]} x {kernel[1]} pixels, got {grid[0]} x {grid[1]}")
    wide = torch.promote_types(x.dtype, torch.float32)
    image, kernels = (torch.fft.rfft2(values.to(wide), s=grid) for values in (x, weight))
    product = torch.einsum("nchw,ochw->nohw", image, kernels.conj())
    rows, columns = grid[0] - kernel[0] + 1, grid[1] - kernel[1] + 1
    return torch.fft.irfft2(product, s=grid)[:, :, :rows, :columns].to(x.dtype)


def locally_connected2d(
    x: Images,
    weight: Float[Tensor, "out_height out_width maps channels k_height k_width"],
    stride: Size = 1,
    padding: Size = 0,
) -> Maps:
    """The layer in which each position has a kernel of its own.

    Args:
        x: images, shape ``(batch, channels, height, width)``.
        weight: shape ``(height', width', maps, channels, k, k)``; :func:`conv2d` is the case where all positions
            share one kernel.
        stride, padding: as for :func:`conv2d`.

    Returns:
        Shape ``(batch, maps, height', width')``.

    Raises:
        TypeError, ValueError: as :func:`conv2d`, and if ``weight`` is for another number of positions.
    """
    if weight.ndim != 6:
        raise ValueError(f"weight must have shape (height', width', maps, channels, k, k), got {tuple(weight.shape)}")
    check_kernels(x, weight[0, 0], None)
    patches = windows(x, tuple(weight.shape[4:]), stride, padding)
    if patches.shape[2:4] != weight.shape[:2]:
        expected, got = tuple(patches.shape[2:4]), tuple(weight.shape[:2])
        raise ValueError(f"weight must have one kernel for each of {expected} positions, got {got}")
    return torch.einsum("nchwab,hwocab->nohw", patches, weight)


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    r"""Windows along an axis, :math:`\lfloor (n + 2p - k)/s \rfloor + 1`.

    Args:
        size: :math:`n`, pixels of the axis.
        kernel, stride, padding: :math:`k`, :math:`s`, :math:`p`.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if one is out of range or no window fits.
    """
    for name, value, least in (("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0), ("size", size, 1)):
        if type(value) is not int:
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if kernel > size + 2 * padding:
        raise ValueError(f"size must be at least {kernel - 2 * padding}, got {size}")
    return (size + 2 * padding - kernel) // stride + 1


def utilization(
    height: int, width: int, kernel_size: Size, stride: Size = 1, padding: Size = 0
) -> Float[Tensor, "height width"]:
    r"""In how many windows each pixel of an image lies.

    The derivative, by that pixel, of the sum of the feature map that a kernel of ones makes.

    Args:
        height, width: of the image, in pixels.
        kernel_size, stride, padding: as for :func:`deepstat.vision.pooling.windows`.

    Returns:
        The counts, shape ``(height, width)``.

    Raises:
        TypeError, ValueError: as :func:`~deepstat.vision.pooling.windows`.
    """
    x = torch.zeros(1, 1, height, width, requires_grad=True)
    with torch.enable_grad():
        total = windows(x, kernel_size, stride, padding).sum()
    return torch.autograd.grad(total, x)[0][0, 0]


def check_kernels(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse kernels that do not fit the images, and a bias that does not fit the kernels."""
    if x.ndim != 4:
        raise ValueError(f"x must have shape (batch, channels, height, width), got {tuple(x.shape)}")
    if weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        expected = f"(maps, {x.shape[1]}, k, k)"
        raise ValueError(f"weight must have shape {expected} for these images, got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({len(weight)},), one for each kernel, got {tuple(bias.shape)}")
