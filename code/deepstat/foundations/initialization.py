"""Random weights to start training from, and how they carry a signal forward and a gradient back.

Chapter: foundations/initialization.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepstat.foundations.activations import ACTIVATIONS, Activation
from deepstat.foundations.mlp import MLP

Weight = Float[Tensor, "fan_out fan_in *kernel"]
Generator = torch.Generator | None


def fans(weight: Weight) -> tuple[int, int]:
    r"""How many numbers a unit sums, and how many units each of its inputs goes to.

    ``weight.shape[1]`` and ``weight.shape[0]``, both times the number of positions of a convolution's kernel.
    That is PyTorch's count. It is exact in the interior of a convolution with stride 1 and one group, and for a linear
    layer; a grouped convolution sends an input to fewer units.

    Args:
        weight: of a linear layer, ``(outputs, inputs)``, or of a convolution, ``(outputs, inputs / groups, *kernel)``.

    Returns:
        ``(fan_in, fan_out)``.

    Raises:
        TypeError: if ``weight`` is not a tensor of floating-point numbers.
        ValueError: if it has fewer than two axes or no entries.
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a tensor of floating-point numbers, got {kind}")
    if weight.ndim < 2 or weight.numel() == 0:
        raise ValueError(f"weight must have shape (fan_out, fan_in, ...) without a zero, got {tuple(weight.shape)}")
    positions = math.prod(weight.shape[2:])
    return weight.shape[1] * positions, weight.shape[0] * positions


def xavier_uniform_(weight: Weight, gain: float = 1.0, generator: Generator = None) -> Weight:
    r"""Fill with :math:`\mathcal U(-b, b)`, :math:`b = g\sqrt{6 / (\mathrm{fan_{in}} + \mathrm{fan_{out}})}`.

    Glorot and Bengio, 2010, equation 16, with :math:`g = 1`. The variance is that of :func:`xavier_normal_`.

    Args:
        weight: changed in place; shape ``(fan_out, fan_in, *kernel)``.
        gain: :math:`g \ge 0`.
        generator: of the random numbers, on the weight's device; PyTorch's global one if not given.

    Returns:
        ``weight``.

    Raises:
        TypeError, ValueError: as :func:`fans`, and if ``gain`` is negative or not finite.
    """
    bound = check_gain(gain) * math.sqrt(6 / sum(fans(weight)))
    with torch.no_grad():
        return weight.uniform_(-bound, bound, generator=generator)


def xavier_normal_(weight: Weight, gain: float = 1.0, generator: Generator = None) -> Weight:
    r"""Fill with :math:`\mathcal N(0, 2 g^2 / (\mathrm{fan_{in}} + \mathrm{fan_{out}}))`.

    The variance that Glorot and Bengio, 2010, ask for. Arguments, result and errors: :func:`xavier_uniform_`.
    """
    spread = check_gain(gain) * math.sqrt(2 / sum(fans(weight)))
    with torch.no_grad():
        return weight.normal_(0, spread, generator=generator)


def he_normal_(
    weight: Weight, mode: str = "fan_in", gain: float = math.sqrt(2), generator: Generator = None
) -> Weight:
    r"""Fill with :math:`\mathcal N(0, g^2 / \mathrm{fan})`; for ReLU :math:`g^2 = 2`.

    He, Zhang, Ren and Sun, 2015, section 2.2.

    Args:
        weight: changed in place; shape ``(fan_out, fan_in, *kernel)``.
        mode: ``"fan_in"``, which keeps the scale of the activations, or ``"fan_out"``, which keeps that of gradients.
        gain: :math:`g \ge 0`; for a leaky ReLU with slope :math:`s`, :math:`\sqrt{2 / (1 + s^2)}`.
        generator: as for :func:`xavier_uniform_`.

    Returns:
        ``weight``.

    Raises:
        TypeError, ValueError: as :func:`xavier_uniform_`, and if ``mode`` is another word.
    """
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan_in, fan_out = fans(weight)
    spread = check_gain(gain) / math.sqrt(fan_in if mode == "fan_in" else fan_out)
    with torch.no_grad():
        return weight.normal_(0, spread, generator=generator)


def lecun_normal_(weight: Weight, generator: Generator = None) -> Weight:
    r"""Fill with :math:`\mathcal N(0, 1 / \mathrm{fan_{in}})`, the scale of LeCun, Bottou, Orr and Müller, 1998.

    Arguments, result and errors are those of :func:`xavier_uniform_`.
    """
    return he_normal_(weight, gain=1.0, generator=generator)


def orthogonal_(weight: Weight, gain: float = 1.0, generator: Generator = None) -> Weight:
    r"""Fill with :math:`g` times a random matrix whose shorter side is orthonormal. Saxe et al., 2014.

    The weight counts as a matrix of shape ``(weight.shape[0], rest)``. If it is square it is uniformly (Haar)
    distributed on the orthogonal group: the factor :math:`\mathbf Q` of a Gaussian matrix, with the signs that make the
    diagonal of :math:`\mathbf R` positive (Mezzadri, 2007). Otherwise it is the first columns, or rows, of such a
    matrix. The variance of an entry is :math:`g^2` divided by the longer side.

    Args:
        weight: changed in place; shape ``(fan_out, fan_in, *kernel)``.
        gain: :math:`g \ge 0`; for ReLU :math:`\sqrt 2`.
        generator: as for :func:`xavier_uniform_`.

    Returns:
        ``weight``.

    Raises:
        TypeError, ValueError: as :func:`xavier_uniform_`.
    """
    fans(weight)
    gain = check_gain(gain)
    rows, columns = weight.shape[0], weight[0].numel()
    exact = torch.promote_types(weight.dtype, torch.float32)  # there is no QR in half precision
    gaussian = torch.empty(rows, columns, dtype=exact, device=weight.device).normal_(generator=generator)
    q, r = torch.linalg.qr(gaussian if rows >= columns else gaussian.mT)
    q = torch.where(r.diagonal() < 0, -q, q)
    with torch.no_grad():
        return weight.copy_(gain * (q if rows >= columns else q.mT).reshape(weight.shape))


def zero_(weight: Weight, generator: Generator = None) -> Weight:
    """Fill with zeros; draws nothing. Arguments and errors are those of :func:`xavier_uniform_`."""
    return he_normal_(weight, gain=0.0, generator=generator)


def standard_normal_(weight: Weight, generator: Generator = None) -> Weight:
    r"""Fill with :math:`\mathcal N(0, 1)`, whatever the fans. Arguments and errors: :func:`xavier_uniform_`."""
    return he_normal_(weight, gain=math.sqrt(fans(weight)[0]), generator=generator)


def torch_default_(weight: Weight, generator: Generator = None) -> Weight:
    r"""Fill with :math:`\mathcal U(-b, b)`, :math:`b = 1 / \sqrt{\mathrm{fan_{in}}}`, as PyTorch's layers start.

    The variance is :math:`1 / (3\,\mathrm{fan_{in}})`. PyTorch's biases have the same distribution.
    Arguments, result and errors are those of :func:`xavier_uniform_`.
    """
    bound = 1 / math.sqrt(fans(weight)[0])
    with torch.no_grad():
        return weight.uniform_(-bound, bound, generator=generator)


SCHEMES: dict[str, Callable[..., Tensor]] = {
    "zero": zero_,
    "N(0, 1)": standard_normal_,
    "PyTorch": torch_default_,
    "LeCun": lecun_normal_,
    "Xavier": xavier_normal_,
    "Xavier uniform": xavier_uniform_,
    "He": he_normal_,
    "orthogonal": orthogonal_,
}


def initialize(model: nn.Module, scheme: str, bias: float = 0.0, generator: Generator = None) -> nn.Module:
    """Draw the weights of all linear and convolutional layers by one scheme, and set their biases to a constant.

    Args:
        model: changed in place. Other layers, such as normalization, stay as they are.
        scheme: a name in ``SCHEMES``.
        bias: of every unit.
        generator: as for :func:`xavier_uniform_`.

    Returns:
        ``model``.

    Raises:
        ValueError: if the name is unknown or there is no such layer.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    if not layers:
        raise ValueError(f"model must have a linear or convolutional layer, got {type(model).__name__} without")
    for layer in layers:
        SCHEMES[scheme](layer.weight, generator=generator)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, bias)
    return model


class Signals(NamedTuple):
    r"""Mean squares in an MLP with :math:`K` hidden layers; every field has shape ``(K,)``.

    Args:
        activations: of :math:`\mathbf h_1, \dots, \mathbf h_K`, over rows and units.
        gradients: of :math:`\partial s / \partial \mathbf h_k`, likewise, for a scalar :math:`s` of each row.
        weight_gradients: of :math:`\partial s / \partial \boldsymbol\Omega_{k-1}`, over rows and entries: the gradients
            of single rows, before a batch averages them.
    """

    activations: Float[Tensor, " K"]
    gradients: Float[Tensor, " K"]
    weight_gradients: Float[Tensor, " K"]


def signals(
    model: MLP, x: Float[Tensor, "n inputs"], score: Callable[[Tensor], Tensor]
) -> Signals:
    r"""Send rows forward and the gradient of a score back, and say how large they are in each hidden layer.

    Args:
        model: any MLP with a hidden layer; its ``grad`` fields are not touched.
        x: inputs, shape ``(n, D_i)``.
        score: maps the outputs ``(n, D_o)`` to one number a row, ``(n,)``, each of its own row alone: a loss without
            the mean, or one output.

    Returns:
        Mean squares, first hidden layer first.

    Raises:
        TypeError: if ``model`` is not an MLP.
        ValueError: if it has no hidden layer, or ``score`` does not give one number a row.
    """
    if not isinstance(model, MLP):
        raise TypeError(f"model must be an MLP, got {type(model).__name__}")
    if len(model.layers) < 2:
        raise ValueError("model must have a hidden layer, got none")
    z, h = [], [x]
    for layer in model.layers[:-1]:
        z.append(layer(h[-1]))
        h.append(model.activation(z[-1]))
    s = score(model.layers[-1](h[-1]))
    if s.shape != (len(x),):
        raise ValueError(f"score must give shape ({len(x)},), one number a row, got {tuple(s.shape)}")
    gradients = torch.autograd.grad(s.sum(), h[1:] + z)

    def squares(tensors):  # (K, n)
        return torch.stack([t.detach().square().mean(1) for t in tensors])

    # the gradient of one row is the outer product of its gradient with respect to z and the layer's input
    outer = squares(gradients[len(z) :]) * squares(h[:-1])
    return Signals(squares(h[1:]).mean(1), squares(gradients[: len(z)]).mean(1), outer.mean(1))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(400)
_Z = 6 * (_NODES + 1)  # on [0, 12]; beyond that the standard normal density is below 1e-31
_DENSITY = 6 * _WEIGHTS * np.exp(-(_Z**2) / 2) / math.sqrt(2 * math.pi)


def gaussian_mean(function: Callable[[Tensor], Tensor], variance: float) -> float:
    r""":math:`\mathbb E\,f(\sqrt{q}\,Z)` for :math:`Z \sim \mathcal N(0, 1)`, by Gauss–Legendre on both half-lines.

    So a kink of :math:`f` at 0 costs no accuracy.

    Args:
        function: :math:`f`, entry by entry.
        variance: :math:`q \ge 0`.

    Raises:
        ValueError: if ``variance`` is negative or not finite.
    """
    if not (variance >= 0 and math.isfinite(variance)):
        raise ValueError(f"variance must be at least 0 and finite, got {variance}")
    z = math.sqrt(variance) * torch.tensor(_Z)
    return float((torch.tensor(_DENSITY) * (function(z) + function(-z))).sum())


def next_variance(activation: str, variance: float, weight_scale: float, bias_variance: float = 0.0) -> float:
    r"""The map :math:`q \mapsto \sigma_w^2\,\mathbb E\,a(\sqrt q Z)^2 + \sigma_b^2` of infinitely wide layers.

    Poole, Lahiri, Raghu, Sohl-Dickstein and Ganguli, 2016. Here :math:`q` is the mean square of the
    pre-activations of a layer, and the weights have variance :math:`\sigma_w^2 / \mathrm{fan_{in}}`.

    Args:
        activation: :math:`a`, a name in ``ACTIVATIONS``.
        variance: :math:`q`.
        weight_scale: :math:`\sigma_w^2 \ge 0`.
        bias_variance: :math:`\sigma_b^2 \ge 0`.

    Raises:
        ValueError: if the name is unknown or a number is negative or not finite.
    """
    function = check_activation(activation).function
    weight_scale = check_gain(weight_scale, "weight_scale")
    bias_variance = check_gain(bias_variance, "bias_variance")
    return weight_scale * gaussian_mean(lambda z: function(z).square(), variance) + bias_variance


def gradient_factor(activation: str, variance: float, weight_scale: float) -> float:
    r""":math:`\chi = \sigma_w^2\,\mathbb E\,a'(\sqrt q Z)^2`, by which a layer multiplies mean squares of gradients.

    Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, 2017. The backward pass sums over outputs, so here the weights have
    variance :math:`\sigma_w^2 / \mathrm{fan_{out}}`. Arguments and errors are those of :func:`next_variance`.
    """
    derivative = check_activation(activation).derivative
    weight_scale = check_gain(weight_scale, "weight_scale")
    return weight_scale * gaussian_mean(lambda z: derivative(z).square(), variance)


def check_activation(activation: str) -> Activation:
    """Return function and derivative of a named activation."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]


def check_gain(gain: float, name: str = "gain") -> float:
    """Return a number, refusing one that is negative or not finite."""
    if not (gain >= 0 and math.isfinite(gain)):
        raise ValueError(f"{name} must be at least 0 and finite, got {gain}")
    return gain
