r"""Losses: negative log-likelihoods of a network's raw outputs, losses of a point prediction, losses of a classifier.

Every function returns the loss of *each observation*, so that weights and means are the caller's:
``(weight * losses.huber(prediction, y, 1.0)).mean()``.

A *likelihood* comes as two functions. ``normal_nll(raw, y)`` takes what the last layer of a network gives, any real
numbers in the columns that its docstring names, and returns :math:`-\log p(y)`. ``normal(raw)`` is the distribution
that these numbers stand for, to predict with. Positive parameters are :func:`positive` functions of their column:
value and gradient stay finite for ``|raw|`` up to 1e4, in float32 too (but for the Poisson's rate). Integers, float16 and
bfloat16 are computed in float32.

A wrong shape is always refused. Values (NaN, a label that is none, a probability outside of [0, 1]) are refused too,
except inside ``torch.compile``, where a look at the data would break the compiled graph; on a GPU, that look waits
for the device.

Chapter: foundations/losses.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, distributions
from torch.nn import functional

from deepstat.foundations.activations import softplus

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

Raw = Float[Tensor, "*batch columns"]
Values = Real[Tensor, "*batch"]
Loss = Float[Tensor, "*batch"]
Scalar = float | Float[Tensor, ""]


def positive(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""The link for positive parameters, :math:`(r + \sqrt{r^2 + 4})/2 = \exp(\operatorname{arsinh}(r/2))`.

    Barron, *Squareplus: a softplus-like algebraic rectifier*, 2021, with his :math:`b = 4`. It is about :math:`r` for large and
    :math:`1/|r|` for small :math:`r`, where the exponential function would overflow or be zero; ``positive(0)`` is 1.
    """
    return torch.asinh(raw / 2).exp()


def normal_nll(raw: Float[Tensor, "*batch 2"], y: Values) -> Loss:
    r"""Normal distribution: :math:`\frac12 z^2 + \log\sigma + \frac12\log 2\pi` with :math:`z = (y - \mu)/\sigma`.

    Args:
        raw: columns :math:`\mu` and the raw scale, :math:`\sigma` = :func:`positive`; shape ``(*batch, 2)``.
        y: real numbers, shape ``(*batch,)``.

    Returns:
        The loss of each observation, shape ``(*batch,)``.

    Raises:
        ValueError: if a shape is another, or a value is infinite or NaN.
    """
    (mean, raw_scale), y = _columns(raw, y, 2)
    return _normal_nll(mean, raw_scale, y)


def normal(raw: Float[Tensor, "*batch 2"]) -> distributions.Normal:
    """The distribution of :func:`normal_nll`."""
    mean, raw_scale = raw.unbind(-1)
    return distributions.Normal(mean, positive(raw_scale))


def laplace_nll(raw: Float[Tensor, "*batch 2"], y: Values) -> Loss:
    r"""Laplace distribution: :math:`|y - \mu|/b + \log 2b`.

    Args:
        raw: columns :math:`\mu` and the raw scale, :math:`b` = :func:`positive`; shape ``(*batch, 2)``.
        y: real numbers, shape ``(*batch,)``.

    Returns, raises: as :func:`normal_nll`.
    """
    (median, raw_scale), y = _columns(raw, y, 2)
    log_scale = torch.asinh(raw_scale / 2)
    return (y - median).abs() * (-log_scale).exp() + log_scale + math.log(2)


def laplace(raw: Float[Tensor, "*batch 2"]) -> distributions.Laplace:
    """The distribution of :func:`laplace_nll`."""
    median, raw_scale = raw.unbind(-1)
    return distributions.Laplace(median, positive(raw_scale))


def student_t_nll(raw: Float[Tensor, "*batch 3"], y: Values) -> Loss:
    r"""Student's t with location, scale and degrees of freedom.

    :math:`\frac{\nu+1}{2}\log(1 + z^2/\nu) + \log\sigma + \frac12\log\nu\pi + \log\Gamma(\frac\nu2) -
    \log\Gamma(\frac{\nu+1}2)`, the difference of the last two by Stirling's series.

    Args:
        raw: columns :math:`\mu`, raw scale and raw degrees of freedom, :math:`\sigma` and :math:`\nu` =
            :func:`positive`; shape ``(*batch, 3)``.
        y: real numbers, shape ``(*batch,)``.

    Returns, raises: as :func:`normal_nll`.
    """
    (location, raw_scale, raw_freedom), y = _columns(raw, y, 3)
    log_scale, freedom = torch.asinh(raw_scale / 2), positive(raw_freedom)
    z = (y - location) * (-log_scale).exp()
    half = freedom / 2
    constant = 0.5 - half * torch.log1p(0.5 / half) + _stirling(half) - _stirling(half + 0.5)
    return (half + 0.5) * torch.log1p(z * z / freedom) + log_scale + HALF_LOG_2PI + constant


def student_t(raw: Float[Tensor, "*batch 3"]) -> distributions.StudentT:
    """The distribution of :func:`student_t_nll`."""
    location, raw_scale, raw_freedom = raw.unbind(-1)
    return distributions.StudentT(positive(raw_freedom), location, positive(raw_scale))


def normal_mixture_nll(raw: Raw, y: Values) -> Loss:
    r"""Mixture of :math:`K` normal distributions: :math:`-\log\sum_k \pi_k\,\mathcal N(y; \mu_k, \sigma_k^2)`.

    Bishop, *Mixture density networks*, 1994. The likelihood of a sample is unbounded: it grows without limit as one
    :math:`\mu_k` meets an observation and :math:`\sigma_k \to 0`.

    Args:
        raw: columns :math:`K` logits of the :math:`\pi_k`, :math:`K` means, :math:`K` raw scales, :math:`\sigma_k` =
            :func:`positive`; shape ``(*batch, 3 K)``.
        y: real numbers, shape ``(*batch,)``.

    Returns, raises: as :func:`normal_nll`.
    """
    if raw.ndim == 0 or raw.shape[-1] == 0 or raw.shape[-1] % 3:
        raise ValueError(f"raw must have 3 K columns for K components, got shape {tuple(raw.shape)}")
    columns, y = _columns(raw, y, raw.shape[-1])
    logits, means, raw_scales = torch.stack(columns, -1).chunk(3, -1)
    terms = functional.log_softmax(logits, -1) - _normal_nll(means, raw_scales, y.unsqueeze(-1))
    return -torch.logsumexp(terms, -1)


def normal_mixture(raw: Raw) -> distributions.MixtureSameFamily:
    """The distribution of :func:`normal_mixture_nll`."""
    logits, means, raw_scales = raw.chunk(3, -1)
    components = distributions.Normal(means, positive(raw_scales))
    return distributions.MixtureSameFamily(distributions.Categorical(logits=logits), components)


def exponential_nll(raw: Float[Tensor, "*batch 1"], y: Values) -> Loss:
    r"""Exponential distribution: :math:`y/\mu + \log\mu`.

    Args:
        raw: one column, the raw mean, :math:`\mu` = :func:`positive`; shape ``(*batch, 1)``.
        y: numbers, at least 0, shape ``(*batch,)``.

    Returns: as :func:`normal_nll`.

    Raises:
        ValueError: as :func:`normal_nll`, and if a ``y`` is negative.
    """
    (raw_mean,), y = _columns(raw, y, 1)
    _refuse(y < 0, "y must be at least 0", y)
    log_mean = torch.asinh(raw_mean / 2)
    return y * (-log_mean).exp() + log_mean


def exponential(raw: Float[Tensor, "*batch 1"]) -> distributions.Exponential:
    """The distribution of :func:`exponential_nll`."""
    return distributions.Exponential(positive(-raw[..., 0]))  # positive(-r) = 1 / positive(r)


def gamma_nll(raw: Float[Tensor, "*batch 2"], y: Values) -> Loss:
    r"""Gamma distribution with mean :math:`\mu` and shape :math:`k` (rate :math:`k/\mu`, variance :math:`\mu^2/k`).

    :math:`k(t - 1 - \log t) + \log y + [\log\Gamma(k) - k\log k + k]` with :math:`t = y/\mu`, the bracket by
    Stirling's series.

    Args:
        raw: columns raw mean and raw shape, both through :func:`positive`; shape ``(*batch, 2)``.
        y: positive numbers, shape ``(*batch,)``.

    Returns: as :func:`normal_nll`.

    Raises:
        ValueError: as :func:`normal_nll`, and if a ``y`` is not positive.
    """
    (raw_mean, raw_shape), y = _columns(raw, y, 2)
    _refuse(y <= 0, "y must be positive", y)
    log_t = y.log() - torch.asinh(raw_mean / 2)
    log_shape = torch.asinh(raw_shape / 2)
    shape = log_shape.exp()
    return shape * (torch.expm1(log_t) - log_t) + y.log() - 0.5 * log_shape + HALF_LOG_2PI + _stirling(shape)


def gamma(raw: Float[Tensor, "*batch 2"]) -> distributions.Gamma:
    """The distribution of :func:`gamma_nll`."""
    mean, shape = positive(raw).unbind(-1)
    return distributions.Gamma(shape, shape / mean)


def beta_nll(raw: Float[Tensor, "*batch 2"], y: Values) -> Loss:
    r"""Beta distribution: :math:`\log B(a, b) - (a - 1)\log y - (b - 1)\log(1 - y)`, by Stirling's series.

    Args:
        raw: columns raw :math:`a` and raw :math:`b`, both through :func:`positive`; shape ``(*batch, 2)``.
        y: numbers strictly between 0 and 1, shape ``(*batch,)``. At 0 and 1 the density is zero or infinite unless
            :math:`a` or :math:`b` is 1.

    Returns: as :func:`normal_nll`.

    Raises:
        ValueError: as :func:`normal_nll`, and if a ``y`` is not between 0 and 1.
    """
    (raw_a, raw_b), y = _columns(raw, y, 2)
    _refuse((y <= 0) | (y >= 1), "y must be strictly between 0 and 1", y)
    log_a, log_b = torch.asinh(raw_a / 2), torch.asinh(raw_b / 2)
    a, b = log_a.exp(), log_b.exp()
    log_y, log_rest = y.log(), torch.log1p(-y)
    # log B = a log(a / (a+b)) + b log(b / (a+b)) + (log(a+b) - log a - log b) / 2 + ..., and a/(a+b) = 1/(1 + b/a)
    weighted = a * (-torch.log1p(b / a) - log_y) + b * (-torch.log1p(a / b) - log_rest)
    sizes = 0.5 * ((a + b).log() - log_a - log_b) + _stirling(a) + _stirling(b) - _stirling(a + b)
    return weighted + log_y + log_rest + sizes + HALF_LOG_2PI


def beta(raw: Float[Tensor, "*batch 2"]) -> distributions.Beta:
    """The distribution of :func:`beta_nll`."""
    a, b = positive(raw).unbind(-1)
    return distributions.Beta(a, b)


def multivariate_normal_nll(raw: Raw, y: Real[Tensor, "*batch K"]) -> Loss:
    r"""Normal distribution on :math:`\mathbb R^K` by the Cholesky factor of its *precision* matrix.

    :math:`\frac12\lVert\mathbf L^\top(\mathbf y - \boldsymbol\mu)\rVert^2 - \sum_k\log L_{kk} + \frac K2\log 2\pi`
    with :math:`\boldsymbol\Sigma^{-1} = \mathbf L\mathbf L^\top`: no system is solved, so nothing overflows.

    Args:
        raw: columns :math:`K` means, :math:`K` raw diagonal entries of :math:`\mathbf L`, through :func:`positive`,
            and its :math:`K(K - 1)/2` entries below, row by row; shape ``(*batch, 2 K + K (K - 1) / 2)``.
        y: vectors, shape ``(*batch, K)``.

    Returns, raises: as :func:`normal_nll`.
    """
    size = y.shape[-1] if y.ndim else 0
    expected = 2 * size + size * (size - 1) // 2
    if size == 0 or raw.shape != (*y.shape[:-1], expected):
        raise ValueError(f"raw must have shape {(*y.shape[:-1], expected)} for y of shape {tuple(y.shape)}, "
                         f"got {tuple(raw.shape)}")  # fmt: skip
    raw = _finite("raw", raw)
    y = _finite("y", y, raw.dtype)
    mean, factor = _mean_and_factor(raw, size)
    z = ((y - mean).unsqueeze(-2) @ factor).squeeze(-2)  # (L^T (y - mean))^T
    log_diagonal = torch.asinh(raw[..., size : 2 * size] / 2)
    return 0.5 * (z * z).sum(-1) - log_diagonal.sum(-1) + size * HALF_LOG_2PI


def multivariate_normal(raw: Raw) -> distributions.MultivariateNormal:
    """The distribution of :func:`multivariate_normal_nll`."""
    size = math.isqrt(2 * raw.shape[-1] + 2) - 1  # the K of 2 K + K (K - 1) / 2 columns
    mean, factor = _mean_and_factor(raw, size)
    return distributions.MultivariateNormal(mean, precision_matrix=factor @ factor.mT)


def von_mises_nll(raw: Float[Tensor, "*batch 2"], y: Values) -> Loss:
    r"""Von Mises distribution: :math:`\log 2\pi I_0(\kappa) - \kappa\cos(y - \mu)`.

    The raw outputs are the natural parameters: a vector whose direction is :math:`\mu` and whose length is
    :math:`\kappa`. So the head has no jump where an angle would wrap.

    Args:
        raw: columns :math:`\kappa\cos\mu` and :math:`\kappa\sin\mu`; shape ``(*batch, 2)``.
        y: angles in radians, from :math:`-\pi` to :math:`\pi`, shape ``(*batch,)``.

    Returns: as :func:`normal_nll`.

    Raises:
        ValueError: as :func:`normal_nll`, and if an angle is outside of :math:`[-\pi, \pi]`.
    """
    (east, north), y = _columns(raw, y, 2)
    _refuse(y.abs() > math.pi + 1e-6, "y must be angles in radians from -pi to pi", y)
    along = east * y.cos() + north * y.sin()
    across = north * y.cos() - east * y.sin()
    unit = torch.maximum(east.abs(), north.abs()).clamp(min=1e-15).detach()  # squares neither overflow nor vanish
    kappa = unit * ((east / unit).square() + (north / unit).square()).clamp(min=1e-30).sqrt()
    # kappa - along without cancellation: kappa^2 - along^2 = across^2
    misfit = torch.where(along > 0, across * (across / (kappa + along.clamp(min=0))), kappa - along)
    return torch.special.i0e(kappa).log() + misfit + 2 * HALF_LOG_2PI


def von_mises(raw: Float[Tensor, "*batch 2"]) -> distributions.VonMises:
    """The distribution of :func:`von_mises_nll`."""
    east, north = raw.unbind(-1)
    return distributions.VonMises(torch.atan2(north, east), torch.hypot(east, north))


def bernoulli_nll(raw: Float[Tensor, "*batch 1"], y: Values) -> Loss:
    r"""Bernoulli distribution, the binary cross-entropy: :math:`-\log\sigma(r)` if :math:`y = 1`, else
    :math:`-\log\sigma(-r)`.

    Args:
        raw: one column, the logit of :math:`\Pr(Y = 1)`; shape ``(*batch, 1)``.
        y: labels 0 or 1, shape ``(*batch,)``.

    Returns: as :func:`normal_nll`.

    Raises:
        ValueError: as :func:`normal_nll`, and if a label is neither 0 nor 1.
    """
    (logit,), y = _columns(raw, y, 1)
    _refuse((y != 0) & (y != 1), "y must be labels 0 or 1", y)
    return softplus((1 - 2 * y) * logit)


def bernoulli(raw: Float[Tensor, "*batch 1"]) -> distributions.Bernoulli:
    """The distribution of :func:`bernoulli_nll`."""
    return distributions.Bernoulli(logits=raw[..., 0])


def categorical_nll(raw: Raw, y: Int[Tensor, "*batch"]) -> Loss:
    r"""Categorical distribution, the cross-entropy of a label: :math:`\log\sum_k e^{r_k} - r_y`.

    Args:
        raw: one column a class, the logits; shape ``(*batch, K)``.
        y: labels :math:`0, \dots, K - 1` (the lecture counts from 1), shape ``(*batch,)``.

    Returns: as :func:`normal_nll`.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if a shape is another, a logit is infinite or NaN, or a label is out of range.
    """
    raw, y = _logits_and_labels(raw, y)
    return -functional.log_softmax(raw, -1).gather(-1, y.unsqueeze(-1)).squeeze(-1)


def categorical(raw: Raw) -> distributions.Categorical:
    """The distribution of :func:`categorical_nll`."""
    return distributions.Categorical(logits=raw)


def poisson_nll(raw: Float[Tensor, "*batch 1"], y: Values) -> Loss:
    r"""Poisson distribution with the canonical link: :math:`e^r - y r + \log y!`.

    Infinite where the rate :math:`e^r` exceeds the dtype's range (:math:`r > 88` in float32).

    Args:
        raw: one column, the log rate; shape ``(*batch, 1)``.
        y: counts 0, 1, 2, ..., shape ``(*batch,)``.

    Returns: as :func:`normal_nll`.

    Raises:
        ValueError: as :func:`normal_nll`, and if a count is negative or not an integer.
    """
    (log_rate,), y = _columns(raw, y, 1)
    _refuse((y < 0) | (y != y.round()), "y must be counts 0, 1, 2, ...", y)
    return log_rate.exp() - y * log_rate + torch.lgamma(y + 1)


def poisson(raw: Float[Tensor, "*batch 1"]) -> distributions.Poisson:
    """The distribution of :func:`poisson_nll`."""
    return distributions.Poisson(raw[..., 0].exp())


def plackett_luce_nll(raw: Raw, y: Int[Tensor, "*batch columns"]) -> Loss:
    r"""Plackett–Luce distribution of a ranking: :math:`\sum_j \bigl(\log\sum_{l \ge j} e^{r_{y_l}} - r_{y_j}\bigr)`.

    Plackett, *The analysis of permutations*, 1975: the best item is chosen with probability proportional to its
    worth :math:`e^{r}`, then the best of the rest, and so on.

    Args:
        raw: one column an item, the logarithm of its worth; shape ``(*batch, K)``.
        y: the items :math:`0, \dots, K - 1` from best to worst (an *ordering*; the list of the items' ranks is its
            inverse), shape ``(*batch, K)``.

    Returns: as :func:`normal_nll`.

    Raises:
        TypeError: if the items are not integers.
        ValueError: if the shapes differ, a worth is infinite or NaN, or a row of ``y`` is no permutation.
    """
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y must be integers, got {y.dtype}")
    if raw.shape != y.shape or raw.ndim == 0:
        raise ValueError(f"raw and y must have the same shape (*batch, K), got {tuple(raw.shape)} and {tuple(y.shape)}")
    items = torch.arange(y.shape[-1], device=y.device)
    _refuse(y.sort(-1).values != items, f"y must be permutations of 0, ..., {len(items) - 1}, one a row", y)
    raw = _finite("raw", raw)
    worth = raw.gather(-1, y.long())
    difference = worth.unsqueeze(-2) - worth.unsqueeze(-1)  # row j, column l: r_l - r_j
    remaining = torch.where(items >= items.unsqueeze(-1), difference, -torch.inf)
    return torch.logsumexp(remaining, -1).sum(-1)


class Likelihood(NamedTuple):
    """A loss of raw outputs, and the distribution that they stand for (None where PyTorch has none)."""

    nll: Callable[[Tensor, Tensor], Tensor]
    distribution: Callable[[Tensor], distributions.Distribution] | None


LIKELIHOODS = {
    "normal": Likelihood(normal_nll, normal),
    "Laplace": Likelihood(laplace_nll, laplace),
    "Student t": Likelihood(student_t_nll, student_t),
    "normal mixture": Likelihood(normal_mixture_nll, normal_mixture),
    "exponential": Likelihood(exponential_nll, exponential),
    "gamma": Likelihood(gamma_nll, gamma),
    "beta": Likelihood(beta_nll, beta),
    "multivariate normal": Likelihood(multivariate_normal_nll, multivariate_normal),
    "von Mises": Likelihood(von_mises_nll, von_mises),
    "Bernoulli": Likelihood(bernoulli_nll, bernoulli),
    "categorical": Likelihood(categorical_nll, categorical),
    "Poisson": Likelihood(poisson_nll, poisson),
    "Plackett-Luce": Likelihood(plackett_luce_nll, None),
}


def squared(prediction: Loss, target: Values) -> Loss:
    r""":math:`e^2` with the residual :math:`e` = target − prediction. Estimates the mean.

    Args:
        prediction, target: of the same shape ``(*batch,)``: nothing is broadcast.

    Returns:
        The loss of each observation, shape ``(*batch,)``.

    Raises:
        ValueError: if the shapes differ or a value is infinite or NaN.
    """
    return _residual(prediction, target) ** 2


def absolute(prediction: Loss, target: Values) -> Loss:
    r""":math:`|e|`, arguments as :func:`squared`. Estimates the median."""
    return _residual(prediction, target).abs()


def quantile(prediction: Loss, target: Values, tau: float | Tensor) -> Loss:
    r"""Check loss :math:`\max(\tau e, (\tau - 1) e)`. Koenker and Bassett, 1978. Estimates the :math:`\tau`-quantile.

    Args:
        prediction, target: as :func:`squared`.
        tau: the level, strictly between 0 and 1; a tensor is broadcast against the shape.

    Raises:
        ValueError: as :func:`squared`, and if ``tau`` is not between 0 and 1.
    """
    e = _residual(prediction, target)
    tau = torch.as_tensor(tau, dtype=e.dtype, device=e.device)
    _refuse(~((tau > 0) & (tau < 1)), "tau must be strictly between 0 and 1", tau)
    return torch.maximum(tau * e, (tau - 1) * e)


def huber(prediction: Loss, target: Values, delta: float) -> Loss:
    r""":math:`\frac12 e^2` if :math:`|e| \le \delta`, else :math:`\delta|e| - \frac12\delta^2`. Huber, 1964.

    Args:
        prediction, target: as :func:`squared`.
        delta: the residual at which the loss becomes linear, positive, in the units of the target.

    Raises:
        ValueError: as :func:`squared`, and if ``delta`` is not positive and finite.
    """
    _positive_number("delta", delta)
    size = _residual(prediction, target).abs()
    return torch.where(size <= delta, 0.5 * size * size, delta * size - 0.5 * delta * delta)


def tukey(prediction: Loss, target: Values, c: float) -> Loss:
    r"""Biweight: :math:`\frac{c^2}{6}\bigl(1 - (1 - e^2/c^2)_+^3\bigr)`. Beaton and Tukey, 1974.

    Args:
        prediction, target: as :func:`squared`.
        c: the residual from which on the loss is constant, positive, in the units of the target. (The lecture's
            :math:`\delta`.)

    Raises:
        ValueError: as :func:`squared`, and if ``c`` is not positive and finite.
    """
    _positive_number("c", c)
    inside = (1 - (_residual(prediction, target) / c) ** 2).clamp(min=0)
    return c * c / 6 * (1 - inside**3)


def barron(prediction: Loss, target: Values, alpha: float | Tensor, scale: float | Tensor = 1.0) -> Loss:
    r"""The general robust loss. Barron, *A general and adaptive robust loss function*, 2019, equation 8.

    With :math:`u = (e/c)^2` and :math:`b = |\alpha - 2|` it is :math:`\frac b\alpha\bigl((u/b + 1)^{\alpha/2} -
    1\bigr)`; the limits are :math:`u/2` at :math:`\alpha = 2`, :math:`\log(u/2 + 1)` at 0 and :math:`1 - e^{-u/2}` at
    :math:`-\infty`. Computed as :math:`\frac b2 l\,\phi(\frac\alpha2 l)` with :math:`l = \log(1 + u/b)` and
    :math:`\phi(t) = (e^t - 1)/t`, which has no case for 0.

    Args:
        prediction, target: as :func:`squared`.
        alpha: the shape, any real number or ``-math.inf``; a tensor may be trained (its derivative at 2 is infinite,
            the one given there is 0).
        scale: :math:`c`, positive, in the units of the target; a tensor may be trained.

    Raises:
        ValueError: as :func:`squared`, and if ``scale`` is not positive, or ``alpha`` is NaN or :math:`+\infty`.
    """
    e = _residual(prediction, target)
    alpha = torch.as_tensor(alpha, dtype=e.dtype, device=e.device)
    scale = torch.as_tensor(scale, dtype=e.dtype, device=e.device)
    _refuse(alpha.isnan() | (alpha == torch.inf), "alpha must be a real number or -inf", alpha)
    _refuse(~((scale > 0) & scale.isfinite()), "scale must be positive and finite", scale)
    u = (e / scale) ** 2
    shape = alpha.clamp(min=-1e12)
    b = (shape - 2).abs().clamp(min=torch.finfo(e.dtype).eps)
    log = torch.log1p(u / b)
    value = b / 2 * log * _relative_expm1(shape / 2 * log)
    value = torch.where(alpha == 2, u / 2, value)
    return torch.where(alpha == -torch.inf, -torch.expm1(-u / 2), value)


def barron_nll(prediction: Loss, target: Values, alpha: Scalar, scale: Scalar) -> Loss:
    r"""The adaptive loss: :func:`barron` as a negative log-likelihood, :math:`\rho + \log c + \log Z(\alpha)`.

    :math:`Z(\alpha) = \int e^{-\rho(x, \alpha, 1)}\,dx` (Barron, 2019) is finite for :math:`\alpha \ge
    0`; we integrate with :math:`x = \sinh t` by the trapezoidal rule, over one half. :math:`\alpha = 2` is the normal distribution
    with standard deviation :math:`c`, :math:`\alpha = 0` Cauchy's with scale :math:`\sqrt2\,c`.

    Args:
        prediction, target: as :func:`squared`.
        alpha: the shape, from 0 to 2, a number or a tensor without axes.
        scale: :math:`c`, positive, a number or a tensor without axes, in the units of the target.

    Raises:
        ValueError: as :func:`barron`, and if ``alpha`` is outside of [0, 2] or has axes, or ``scale`` has.
    """
    parameters = {}
    for name, value in (("alpha", alpha), ("scale", scale)):
        parameters[name] = torch.as_tensor(value, dtype=_wide(prediction), device=prediction.device)
        if parameters[name].ndim:
            raise ValueError(f"{name} must have no axes, got shape {tuple(parameters[name].shape)}")
    alpha, scale = parameters.values()
    _refuse(~((alpha >= 0) & (alpha <= 2)), "alpha must be from 0 to 2", alpha)
    step = (36 if alpha.dtype == torch.float64 else 18) / 720  # beyond the last, at alpha = 0, is 4 exp(-720 step)
    t = step * torch.arange(1, 721, dtype=alpha.dtype, device=alpha.device)
    density = (-barron(t.sinh(), torch.zeros_like(t), alpha)).exp() * t.cosh()
    return barron(prediction, target, alpha, scale) + scale.log() + (step + 2 * step * density.sum()).log()


def cross_entropy(raw: Raw, probabilities: Raw) -> Loss:
    r"""Cross-entropy :math:`-\sum_k p_k \log q_k` of a distribution :math:`p` and :math:`q` = softmax of the logits.

    Args:
        raw: logits of :math:`q`; shape ``(*batch, K)``.
        probabilities: :math:`p`, in [0, 1], each row with sum 1; shape ``(*batch, K)``.

    Returns:
        The loss of each observation, shape ``(*batch,)``.

    Raises:
        ValueError: if the shapes differ, a logit is infinite or NaN, or a row is no probability distribution.
    """
    raw, probabilities = _logits_and_probabilities(raw, probabilities)
    return -(probabilities * functional.log_softmax(raw, -1)).sum(-1)


def kl_divergence(raw: Raw, probabilities: Raw) -> Loss:
    r"""Kullback–Leibler divergence :math:`\sum_k p_k \log(p_k / q_k)`, arguments as :func:`cross_entropy`."""
    raw, probabilities = _logits_and_probabilities(raw, probabilities)
    return (torch.xlogy(probabilities, probabilities) - probabilities * functional.log_softmax(raw, -1)).sum(-1)


def smooth_labels(y: Int[Tensor, "*batch"], classes: int, epsilon: float) -> Float[Tensor, "*batch classes"]:
    r"""Smoothed labels :math:`(1 - \epsilon)\mathbb 1\{k = y\} + \epsilon/K`. Szegedy et al., 2016.

    Args:
        y: labels :math:`0, \dots, K - 1`, shape ``(*batch,)``.
        classes: :math:`K`.
        epsilon: the weight of the uniform distribution, in [0, 1].

    Returns:
        Probabilities for :func:`cross_entropy`, shape ``(*batch, K)``, of the default dtype.

    Raises:
        TypeError, ValueError: as :func:`categorical_nll`, and if ``epsilon`` is outside of [0, 1].
    """
    y = _labels(y, classes)
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must be from 0 to 1, got {epsilon}")
    return (1 - epsilon) * functional.one_hot(y, classes).to(torch.get_default_dtype()) + epsilon / classes


def focal(raw: Raw, y: Int[Tensor, "*batch"], gamma: float = 2.0) -> Loss:
    r"""Focal loss :math:`-(1 - q_y)^\gamma \log q_y` with :math:`q` = softmax of the logits. Lin et al., 2017.

    Their :math:`\alpha` is a weight of the class, which is the caller's.

    Args:
        raw: logits, at least two classes; shape ``(*batch, K)``.
        y: labels :math:`0, \dots, K - 1`, shape ``(*batch,)``.
        gamma: at least 0; 0 is :func:`categorical_nll`.

    Raises:
        TypeError, ValueError: as :func:`categorical_nll`, and if ``gamma`` is negative or there is one class.
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be at least 0 and finite, got {gamma}")
    raw, y = _logits_and_labels(raw, y)
    if raw.shape[-1] < 2:
        raise ValueError(f"raw must have at least two classes, got shape {tuple(raw.shape)}")
    log_q = functional.log_softmax(raw, -1)
    is_y = functional.one_hot(y, raw.shape[-1]).bool()
    log_rest = torch.logsumexp(log_q.masked_fill(is_y, -torch.inf), -1)  # log(1 - q_y)
    return -(gamma * log_rest).exp() * log_q.gather(-1, y.unsqueeze(-1)).squeeze(-1)


def brier(probabilities: Raw, y: Int[Tensor, "*batch"]) -> Loss:
    r"""Brier score :math:`\sum_k (q_k - \mathbb 1\{k = y\})^2`; for two classes twice :math:`(q_1 - y)^2`.

    Args:
        probabilities: :math:`q`, in [0, 1], each row with sum 1; shape ``(*batch, K)``.
        y: labels :math:`0, \dots, K - 1`, shape ``(*batch,)``.

    Raises:
        TypeError, ValueError: as :func:`categorical_nll`, and if a row is no probability distribution.
    """
    y = _labels(y, probabilities.shape[-1], probabilities)
    _distribution(probabilities)
    truth = functional.one_hot(y, probabilities.shape[-1])
    return ((probabilities.to(_wide(probabilities)) - truth) ** 2).sum(-1)


def dice(probabilities: Float[Tensor, "n *rest"], target: Real[Tensor, "n *rest"], smooth: float = 1.0) -> Float[
    Tensor, " n"
]:
    r"""Dice loss :math:`1 - \frac{2\sum_j q_j t_j + s}{\sum_j q_j + \sum_j t_j + s}`, one number for each image.

    The soft version of the Dice coefficient of two sets; Milletari et al., 2016, square the terms of the denominator.

    Args:
        probabilities: :math:`q`, of each pixel to be in the set, in [0, 1]; shape ``(n, ...)``.
        target: the mask :math:`t`, 0 or 1, of the same shape.
        smooth: :math:`s`, at least 0. With 0, two empty sets give NaN.

    Returns:
        The loss of each row, shape ``(n,)``.

    Raises:
        ValueError: if the shapes differ, a probability is outside of [0, 1] or NaN, a target is neither 0 nor 1, or
            ``smooth`` is negative.
    """
    if probabilities.shape != target.shape or probabilities.ndim < 2:
        raise ValueError("probabilities and target must have the same shape (n, ...), "
                         f"got {tuple(probabilities.shape)} and {tuple(target.shape)}")  # fmt: skip
    if not 0 <= smooth < math.inf:
        raise ValueError(f"smooth must be at least 0 and finite, got {smooth}")
    _refuse(~((probabilities >= 0) & (probabilities <= 1)), "probabilities must be in [0, 1]", probabilities)
    _refuse((target != 0) & (target != 1), "target must be 0 or 1", target)
    q = probabilities.to(_wide(probabilities)).flatten(1)
    t = target.to(q.dtype).flatten(1)
    return 1 - (2 * (q * t).sum(1) + smooth) / (q.sum(1) + t.sum(1) + smooth)


def class_balanced_weights(counts: Real[Tensor, " K"], beta: float) -> Float[Tensor, " K"]:
    r"""Weights :math:`w_c \propto (1 - \beta)/(1 - \beta^{n_c})`, scaled to sum :math:`K`. Cui et al., 2019.

    :math:`\beta = 0` gives equal weights, :math:`\beta \to 1` weights inverse to the counts.

    Args:
        counts: :math:`n_c`, observations of each class, at least 1; shape ``(K,)``.
        beta: in [0, 1).

    Returns:
        Weights in float64, shape ``(K,)``.

    Raises:
        ValueError: if a count is below 1 or ``beta`` is outside of [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be at least 0 and below 1, got {beta}")
    _refuse(~(counts >= 1), "counts must be at least 1", counts)
    weights = (1 - beta) / (1 - beta ** counts.double())
    return weights * len(weights) / weights.sum()


def _normal_nll(mean: Tensor, raw_scale: Tensor, y: Tensor) -> Tensor:
    log_scale = torch.asinh(raw_scale / 2)
    z = (y - mean) * (-log_scale).exp()
    return 0.5 * z * z + log_scale + HALF_LOG_2PI


def _mean_and_factor(raw: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The mean and the Cholesky factor of the precision, lower triangular."""
    mean, diagonal, below = raw.split([size, size, size * (size - 1) // 2], -1)
    factor = torch.diag_embed(positive(diagonal))
    rows, columns = torch.tril_indices(size, size, -1, device=raw.device)
    factor[..., rows, columns] = below
    return mean, factor


def _stirling(x: Tensor) -> Tensor:
    r""":math:`\log\Gamma(x) - (x - \frac12)\log x + x - \frac12\log 2\pi`, small and without cancellation for large x.

    The series of Abramowitz and Stegun, 6.1.41; from 10 on its error is below :math:`2 \cdot 10^{-14}`.
    """
    small, large = x.clamp(max=10), x.clamp(min=10)
    exact = torch.lgamma(small) - (small - 0.5) * small.log() + small - HALF_LOG_2PI
    w = 1 / (large * large)
    series = (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w / 1188)))) / large
    return torch.where(x < 10, exact, series)


def _relative_expm1(t: Tensor) -> Tensor:
    """(exp(t) - 1) / t, with value and derivative right at and near 0."""
    near = t.abs() < 0.05
    away = torch.where(near, 1.0, t)
    small = torch.where(near, t, 0.0)
    series = torch.ones_like(small)
    for k in range(9, 1, -1):  # 1 + t/2 (1 + t/3 (1 + ...))
        series = 1 + small / k * series
    return torch.where(near, series, torch.expm1(away) / away)


def _wide(tensor: Tensor) -> torch.dtype:
    """At least float32: losses are sums, and sums of 8 or 11 bits lose everything."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _refuse(bad: Tensor, expected: str, given: Tensor) -> None:
    """Raise if anything is bad, unless compiled; the message ends with the first offender."""
    if torch.compiler.is_compiling() or not bad.any():
        return
    bad, given = torch.broadcast_tensors(bad, given)
    raise ValueError(f"{expected}, got {given[bad][0].item()}")


def _finite(name: str, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor in this dtype, or in at least float32, if all its values are finite."""
    _refuse(~tensor.isfinite(), f"{name} must be finite", tensor)
    return tensor.to(dtype or _wide(tensor))


def _columns(raw: Tensor, y: Tensor, number: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """The columns of ``raw``, and ``y`` in their dtype."""
    if raw.shape != (*y.shape, number):
        raise ValueError(f"raw must have shape {(*y.shape, number)} for y of shape {tuple(y.shape)}, "
                         f"got {tuple(raw.shape)}")  # fmt: skip
    raw = _finite("raw", raw)
    return raw.unbind(-1), _finite("y", y, raw.dtype)


def _residual(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise ValueError("prediction and target must have the same shape, "
                         f"got {tuple(prediction.shape)} and {tuple(target.shape)}")  # fmt: skip
    prediction = _finite("prediction", prediction)
    return _finite("target", target, prediction.dtype) - prediction


def _positive_number(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


def _labels(y: Tensor, classes: int, raw: Tensor | None = None) -> Tensor:
    """The labels as int64, if they are integers from 0 to classes - 1, one for each row."""
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y must be integers, got {y.dtype}")
    if raw is not None and raw.shape[:-1] != y.shape:
        raise ValueError(f"y must have shape {tuple(raw.shape[:-1])}, one label a row, got {tuple(y.shape)}")
    y = y.long()
    _refuse((y < 0) | (y >= classes), f"y must be labels from 0 to {classes - 1}", y)
    return y


def _logits_and_labels(raw: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if raw.ndim == 0:
        raise ValueError("raw must have shape (*batch, K), got ()")
    y = _labels(y, raw.shape[-1], raw)
    return _finite("raw", raw), y


def _distribution(probabilities: Tensor) -> None:
    """Refuse rows that are no probability distribution."""
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    _refuse(outside, "probabilities must be in [0, 1]", probabilities)
    total = probabilities.sum(-1)
    _refuse((total - 1).abs() > 1e-3, "probabilities must have sum 1 in each row", total)


def _logits_and_probabilities(raw: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    if raw.shape != probabilities.shape or raw.ndim == 0:
        raise ValueError("raw and probabilities must have the same shape (*batch, K), "
                         f"got {tuple(raw.shape)} and {tuple(probabilities.shape)}")  # fmt: skip
    _distribution(probabilities)
    raw = _finite("raw", raw)
    return raw, probabilities.to(raw.dtype)
