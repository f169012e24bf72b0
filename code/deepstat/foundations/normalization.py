"""Layers that standardize what passes through them: over the batch, over a row, over groups of channels.

All statistics are computed in at least single precision; the result has the input's dtype.

Chapter: foundations/initialization.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BatchNorm(nn.Module):
    r"""Batch normalization of every feature, or of every channel over the batch and all positions.

    Ioffe and Szegedy, 2015, algorithms 1 and 2. In training :math:`y = \gamma (x - m) / \sqrt{s^2 + \epsilon} + \beta`
    with the batch's mean :math:`m` and biased variance :math:`s^2` (divisor: the count). The running averages move by
    ``momentum`` towards :math:`m` and the *unbiased* variance, as in PyTorch; in evaluation mode they take the place of
    :math:`m` and :math:`s^2`.

    Args:
        features: :math:`C`.
        eps: :math:`\epsilon \ge 0`.
        momentum: the weight of the newest batch, in [0, 1].

    Shapes: ``(B, C)`` or ``(B, C, *positions)``, unchanged.

    Raises:
        ValueError: if an argument is out of range, the input's second axis is not :math:`C`, or there is only one
            value a feature in training: it would be normalized to :math:`\beta`, and has no variance.
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.features, self.eps = check_size("features", features), check_eps(eps)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(
        self, x: Float[Tensor, "B C *positions"]
    ) -> Float[Tensor, "B C *positions"]:
        check_channels(x, self.features)
        shape = (1, self.features) + (1,) * (x.ndim - 2)
        z = at_least_float32(x)
        if self.training:
            count = x.numel() // self.features
            if count < 2:
                raise ValueError(f"x must have more than one value a feature in training, got shape {tuple(x.shape)}")
            axes = [axis for axis in range(x.ndim) if axis != 1]
            mean = z.mean(axes)
            centred = z - mean.view(shape)
            variance = centred.square().mean(axes)
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                unbiased = variance * (count / (count - 1))
                self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        else:
            centred, variance = z - self.running_mean.view(shape), self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


class LayerNorm(nn.Module):
    r"""Layer normalization: each row by mean and variance of its own features. Ba, Kiros and Hinton, 2016.

    :math:`y_c = \gamma_c (x_c - m) / \sqrt{s^2 + \epsilon} + \beta_c` over the last axis. The same in training and in
    evaluation.

    Args:
        features: :math:`D`, the length of the last axis.
        eps: :math:`\epsilon \ge 0`.

    Shapes: ``(..., D)``, unchanged.

    Raises:
        ValueError: if an argument is out of range or the input's last axis is not :math:`D`.
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__()
        self.features, self.eps = check_size("features", features), check_eps(eps)
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        check_last_axis(x, self.features)
        z = at_least_float32(x)
        variance, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
        z = (z - mean) * torch.rsqrt(variance + self.eps)
        return (z * self.weight + self.bias).to(x.dtype)


class RMSNorm(nn.Module):
    r"""Layer normalization without the mean: :math:`y_c = \gamma_c x_c / \sqrt{D^{-1}\sum_d x_d^2 + \epsilon}`.

    Zhang and Sennrich, 2019, with an :math:`\epsilon` that the paper does not have. (PyTorch's default for
    it is the machine precision of the dtype.)

    Args:
        features: :math:`D`, the length of the last axis.
        eps: :math:`\epsilon \ge 0`.

    Shapes: ``(..., D)``, unchanged.

    Raises:
        ValueError: as :class:`LayerNorm`.
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__()
        self.features, self.eps = check_size("features", features), check_eps(eps)
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        check_last_axis(x, self.features)
        z = at_least_float32(x)
        z = z * torch.rsqrt(z.square().mean(-1, keepdim=True) + self.eps)
        return (z * self.weight).to(x.dtype)


class GroupNorm(nn.Module):
    r"""Group normalization: each row by mean and variance of a group of channels, over all positions.

    Wu and He, 2018. With one group it is layer normalization of all channels and positions together; with as many
    groups as channels, *instance normalization*. Every channel has its own :math:`\gamma` and :math:`\beta`.

    Args:
        groups: divides ``channels``; group :math:`j` has the :math:`j`-th run of neighbouring channels.
        channels: :math:`C`.
        eps: :math:`\epsilon \ge 0`.

    Shapes: ``(B, C, *positions)``, unchanged.

    Raises:
        ValueError: if an argument is out of range, or the input's second axis is not :math:`C`.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5):
        super().__init__()
        self.groups = check_size("groups", groups)
        self.channels, self.eps = check_size("channels", channels), check_eps(eps)
        if channels % groups:
            raise ValueError(f"groups must divide channels, got {groups} and {channels}")
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "B C *positions"]
    ) -> Float[Tensor, "B C *positions"]:
        check_channels(x, self.channels)
        z = at_least_float32(x).reshape(len(x), self.groups, -1)
        variance, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
        z = ((z - mean) * torch.rsqrt(variance + self.eps)).reshape(x.shape)
        shape = (1, self.channels) + (1,) * (x.ndim - 2)
        return (z * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


def local_response_norm(
    x: Float[Tensor, "B C *positions"], size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Float[Tensor, "B C *positions"]:
    r"""Divide each value by a power of the squares of its neighbours in the channel axis.

    Krizhevsky, Sutskever and Hinton, 2012, section 3.3:
    :math:`y_c = x_c / (k + \alpha \sum_{|d - c| \le (n - 1)/2} x_d^2)^\beta` at each position, with their constants as
    defaults; channels that do not exist count as zero. PyTorch's ``local_response_norm`` has :math:`\alpha / n` in the
    place of :math:`\alpha`, and 1 as default of :math:`k`.

    Args:
        x: shape ``(B, C, *positions)``.
        size: :math:`n`, odd.
        alpha: :math:`\alpha \ge 0`.
        beta: :math:`\beta`.
        k: :math:`k > 0`.

    Returns:
        The same shape.

    Raises:
        ValueError: if ``size`` is not odd, another number is out of range, or ``x`` has fewer than two axes.
    """
    if check_size("size", size) % 2 == 0:
        raise ValueError(f"size must be odd, got {size}")
    if alpha < 0 or k <= 0:
        raise ValueError(f"alpha must be at least 0 and k positive, got {alpha} and {k}")
    if x.ndim < 2:
        raise ValueError(f"x must have shape (B, C, ...), got {tuple(x.shape)}")
    squares = at_least_float32(x).square()
    rest = (0, 0) * (x.ndim - 2)
    padded = nn.functional.pad(squares, (*rest, size // 2, size // 2))
    total = padded.unfold(1, size, 1).sum(-1)
    return (x / (k + alpha * total) ** beta).to(x.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Return half precision as single precision, everything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_size(name: str, value: int) -> int:
    """Return a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return value


def check_eps(eps: float) -> float:
    """Return a number that is not negative."""
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps must be at least 0, got {eps}")
    return eps


def check_channels(x: Tensor, channels: int) -> None:
    """Refuse an input whose second axis is not that of the channels."""
    if x.ndim < 2 or x.shape[1] != channels:
        raise ValueError(f"x must have shape (B, {channels}, ...), got {tuple(x.shape)}")


def check_last_axis(x: Tensor, features: int) -> None:
    """Refuse an input whose last axis is not that of the features."""
    if x.ndim < 1 or x.shape[-1] != features:
        raise ValueError(f"x must have shape (..., {features}), got {tuple(x.shape)}")
