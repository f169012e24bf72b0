r"""Pooling: one number for each window of an image, channel by channel.

A window at row :math:`i` and column :math:`j` of the result holds the pixels :math:`(si - p + a, sj - p + b)`,
:math:`0 \le a, b < k`, for stride :math:`s`, padding :math:`p` and kernel size :math:`k`, counted from 0. All functions
work on any device, in any float dtype and under ``torch.compile``.

Chapters: vision/convolution, vision/segmentation.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Size = int | tuple[int, int]  # one number, or (rows, columns)
Images = Float[Tensor, "batch channels height width"]
Pooled = Float[Tensor, "batch channels out_height out_width"]


def windows(
    x: Images, kernel_size: Size, stride: Size | None = None, padding: Size = 0, fill: float = 0.0
) -> Float[Tensor, "batch channels out_height out_width k_height k_width"]:
    r"""All windows of the images, as a view that copies no pixel (padding does make one copy).

    There are :math:`\lfloor (n + 2p - k)/s \rfloor + 1` of them along an axis of :math:`n` pixels.

    Args:
        x: images, shape ``(batch, channels, height, width)``.
        kernel_size: :math:`k`, rows and columns of a window, or one number for both.
        stride: :math:`s`, steps from one window to the next; the kernel size if not given.
        padding: :math:`p`, rows and columns to add on each side.
        fill: the value of the added pixels.

    Returns:
        Shape ``(batch, channels, height', width', k, k)``.

    Raises:
        TypeError: if a size is not one or two integers.
        ValueError: if a size is out of range, ``x`` has another number of axes, or no window fits into it.
    """
    if x.ndim != 4:
        raise ValueError(f"x must have shape (batch, channels, height, width), got {tuple(x.shape)}")
    kernel = pair("kernel_size", kernel_size, 1)
    step = kernel if stride is None else pair("stride", stride, 1)
    border = pair("padding", padding, 0)
    least = [max(k - 2 * p, 1) for k, p in zip(kernel, border, strict=True)]
    if x.shape[2] < least[0] or x.shape[3] < least[1]:
        raise ValueError(
            f"x must be at least {least[0]} x {least[1]} pixels for a kernel of {kernel[0]} x {kernel[1]} "
            f"with padding {border[0]} and {border[1]}, got {x.shape[2]} x {x.shape[3]}"
        )
    if any(border):
        x = functional.pad(x, (border[1], border[1], border[0], border[0]), value=fill)
    return x.unfold(2, kernel[0], step[0]).unfold(3, kernel[1], step[1])


def max_pool2d(x: Images, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Pooled:
    r"""The largest value of each window; padding never wins.

    Riesenhuber and Poggio, *Hierarchical Models of Object Recognition in Cortex*, Nature Neuroscience, 1999. The
    gradient goes to one pixel that attains the maximum.

    Args:
        x: images, shape ``(batch, channels, height, width)``.
        kernel_size, stride, padding: as for :func:`windows`; padding is smaller than the kernel.

    Returns:
        Shape ``(batch, channels, height', width')``.

    Raises:
        TypeError, ValueError: as :func:`windows`.
    """
    _inside(kernel_size, padding)
    return windows(x, kernel_size, stride, padding, fill=-torch.inf).flatten(-2).max(-1).values


def avg_pool2d(x: Images, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Pooled:
    r"""The mean of each window, padded zeros counted.

    LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998, section II.A, without the trained
    coefficient and bias that they add to each map.

    Args:
        x: images, shape ``(batch, channels, height, width)``.
        kernel_size, stride, padding: as for :func:`windows`; padding is smaller than the kernel.

    Returns:
        Shape ``(batch, channels, height', width')``.

    Raises:
        TypeError, ValueError: as :func:`windows`.
    """
    _inside(kernel_size, padding)
    return windows(x, kernel_size, stride, padding).mean((-2, -1))


def lp_pool2d(
    x: Images, p: float, kernel_size: Size, stride: Size | None = None, padding: Size = 0
) -> Pooled:
    r"""The :math:`\ell_p` norm of each window, :math:`(\sum_{ab} |x_{ab}|^p)^{1/p}`.

    A sum for :math:`p = 1` and the largest absolute value for :math:`p \to \infty`. It does not overflow where its
    value does not, and a window of zeros has gradient zero.

    Args:
        x: images, shape ``(batch, channels, height, width)``.
        p: the exponent, at least 1 and finite.
        kernel_size, stride, padding: as for :func:`windows`; padding is smaller than the kernel.

    Returns:
        Shape ``(batch, channels, height', width')``.

    Raises:
        TypeError, ValueError: as :func:`windows`, and if ``p`` is below 1 or not finite.
    """
    if not 1 <= p < float("inf"):
        raise ValueError(f"p must be at least 1 and finite, got {p}")
    _inside(kernel_size, padding)
    values = windows(x, kernel_size, stride, padding).flatten(-2).abs()
    largest = values.detach().amax(-1, keepdim=True)
    scale = torch.where(largest == 0, torch.ones_like(largest), largest)
    total = (values / scale).pow(p).sum(-1, keepdim=True)  # at least 1, or exactly 0
    root = torch.where(total == 0, torch.ones_like(total), total).pow(1 / p)
    return torch.where(total == 0, torch.zeros_like(total), scale * root).squeeze(-1)


def stochastic_pool2d(
    x: Images,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    *,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> Pooled:
    r"""One pixel of each window, drawn with probability proportional to its value.

    Zeiler and Fergus, *Stochastic Pooling for Regularization of Deep Convolutional Neural Networks*, 2013, equations 4
    to 6. Pixel :math:`l` of a window has probability :math:`x_l / \sum_m x_m`. In training one is drawn, at evaluation
    the result is the expectation :math:`\sum_l x_l^2 / \sum_m x_m`. A window of zeros gives 0.

    Args:
        x: activations of at least 0, shape ``(batch, channels, height, width)``; negative values are never drawn.
        kernel_size, stride, padding: as for :func:`windows`; padding is smaller than the kernel.
        training: whether to draw.
        generator: where the draws come from, on the device of ``x``; PyTorch's own if not given.

    Returns:
        Shape ``(batch, channels, height', width')``.

    Raises:
        TypeError, ValueError: as :func:`windows`.
    """
    _inside(kernel_size, padding)
    values = windows(x, kernel_size, stride, padding).flatten(-2).clamp(min=0)
    if training:  # an exponential race: of independent E_l, x_l / E_l is the largest with probability x_l / sum
        wide = torch.promote_types(x.dtype, torch.float32)
        uniform = torch.rand(values.shape, generator=generator, dtype=wide, device=x.device)
        race = values.detach().to(wide) / (-torch.log1p(-uniform)).clamp(min=1e-30)
        return values.gather(-1, race.argmax(-1, keepdim=True)).squeeze(-1)
    total = values.sum(-1)
    safe = torch.where(total == 0, torch.ones_like(total), total)
    return (values * (values / safe.unsqueeze(-1))).sum(-1)


def global_avg_pool2d(x: Images) -> Float[Tensor, "batch channels"]:
    """The mean of each channel over all its pixels, whatever the size of the image. Lin, Chen and Yan, 2014.

    Args:
        x: images, shape ``(batch, channels, height, width)``.

    Returns:
        Shape ``(batch, channels)``.

    Raises:
        ValueError: if ``x`` has another number of axes.
    """
    if x.ndim != 4:
        raise ValueError(f"x must have shape (batch, channels, height, width), got {tuple(x.shape)}")
    return x.mean((-2, -1))


def pair(name: str, size: Size, least: int) -> tuple[int, int]:
    """Return rows and columns, refusing what is no size.

    Args:
        name: what to call the size in an error.
        size: one number for both, or two.
        least: the smallest number allowed.

    Raises:
        TypeError: if ``size`` is not one or two integers.
        ValueError: if a number is below ``least``.
    """
    both = (size, size) if isinstance(size, int) else size
    if not isinstance(both, tuple) or len(both) != 2 or any(type(number) is not int for number in both):
        raise TypeError(f"{name} must be an integer or a pair of integers, got {size!r}")
    if min(both) < least:
        raise ValueError(f"{name} must be at least {least}, got {size}")
    return both


def _inside(kernel_size: Size, padding: Size) -> None:
    """Refuse padding so wide that a window may hold no pixel of the image."""
    kernel, border = pair("kernel_size", kernel_size, 1), pair("padding", padding, 0)
    if border[0] >= kernel[0] or border[1] >= kernel[1]:
        raise ValueError(f"padding must be smaller than the kernel {kernel_size}, got {padding}")
