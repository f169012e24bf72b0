import itertools
import math

import jaxtyping
import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.nn import functional

from deepstat.foundations import losses
from deepstat.foundations.losses import LIKELIHOODS
from helpers import refuses

N = 40
SCALES = {  # observations in each support, and the reference's log density given the distribution's parameters
    "normal": (2, "real", lambda d, y: stats.norm.logpdf(y, d.loc, d.scale)),
    "Laplace": (2, "real", lambda d, y: stats.laplace.logpdf(y, d.loc, d.scale)),
    "Student t": (3, "real", lambda d, y: stats.t.logpdf(y, d.df, d.loc, d.scale)),
    "normal mixture": (6, "real", lambda d, y: np.log(sum(
        w * stats.norm.pdf(y, m, s) for w, m, s in zip(
            d.mixture_distribution.probs.T.numpy(), d.component_distribution.loc.T.numpy(),
            d.component_distribution.scale.T.numpy(), strict=True)))),
    "exponential": (1, "positive", lambda d, y: stats.expon.logpdf(y, scale=d.mean)),
    "gamma": (2, "positive", lambda d, y: stats.gamma.logpdf(y, d.concentration, scale=1 / d.rate)),
    "beta": (2, "share", lambda d, y: stats.beta.logpdf(y, d.concentration1, d.concentration0)),
    "multivariate normal": (9, "vector", lambda d, y: [
        stats.multivariate_normal.logpdf(a, m, c)
        for a, m, c in zip(y.numpy(), d.loc.numpy(), d.covariance_matrix.numpy(), strict=True)]),
    "von Mises": (2, "angle", lambda d, y: stats.vonmises.logpdf(y, d.concentration, d.loc)),
    "Bernoulli": (1, "binary", lambda d, y: stats.bernoulli.logpmf(y, d.probs)),
    "categorical": (4, "label", lambda d, y: [
        stats.multinomial.logpmf(np.eye(4)[k], 1, p) for k, p in zip(y, d.probs.numpy(), strict=True)]),
    "Poisson": (1, "count", lambda d, y: stats.poisson.logpmf(y, d.rate)),
    "Plackett-Luce": (4, "ordering", None),
}  # fmt: skip
every_likelihood = pytest.mark.parametrize("name", list(SCALES))


def draw(name, generator, n=N, dtype=torch.float64):
    """Raw outputs of moderate size, and observations in the support."""
    columns, support, _ = SCALES[name]
    raw = 2 * torch.randn(n, columns, generator=generator, dtype=torch.float64)
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    y = {
        "real": 4 * u - 2, "positive": -3 * u.log(), "share": u, "angle": math.pi * (2 * u - 1),
        "binary": (u < 0.5).long(), "label": (4 * u).long(), "count": (9 * u).long(),
        "vector": torch.randn(n, 3, generator=generator, dtype=torch.float64),
        "ordering": torch.rand(n, 4, generator=generator).argsort(1),
    }[support]  # fmt: skip
    return raw.to(dtype), y.to(dtype) if y.is_floating_point() else y


def test_there_is_a_case_for_every_likelihood():
    assert list(SCALES) == list(LIKELIHOODS)


@every_likelihood
def test_the_loss_is_scipys_and_the_distributions(name, generator):
    raw, y = draw(name, generator)
    nll = LIKELIHOODS[name].nll(raw, y)
    assert nll.shape == (N,)
    if name == "Plackett-Luce":
        worth = raw.exp()
        for row in range(N):
            left, p = list(y[row]), 1.0
            while left:
                p *= worth[row, left[0]] / worth[row, left].sum()
                left.pop(0)
            assert nll[row].item() == pytest.approx(-math.log(p), rel=1e-12)
        return
    distribution = LIKELIHOODS[name].distribution(raw)
    reference = SCALES[name][2](distribution, y)
    torch.testing.assert_close(nll, -torch.as_tensor(np.asarray(reference)), rtol=1e-9, atol=1e-10)
    observed = y.to(raw.dtype) if name in ("Bernoulli", "Poisson") else y
    # torch.distributions approximates the von Mises normalizer by polynomials
    accuracy = 1e-6 if name == "von Mises" else 1e-9
    torch.testing.assert_close(nll, -distribution.log_prob(observed), rtol=accuracy, atol=accuracy)


def test_plackett_luce_sums_to_one_and_the_first_item_is_a_softmax():
    raw = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    p = (-losses.plackett_luce_nll(raw.expand(24, 4), orders)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    first = torch.stack([p[orders[:, 0] == item].sum() for item in range(4)])
    torch.testing.assert_close(first, raw.softmax(0))


@every_likelihood
def test_the_gradient_is_the_numerical_one(name, generator):
    raw, y = draw(name, generator, n=5)
    raw[0] = 0  # where arsinh, the length of a vector and the maximum are most delicate
    raw.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: LIKELIHOODS[name].nll(r, y), raw, atol=1e-6)


EXTREME = (-1e4, -300.0, 0.0, 300.0, 1e4)


def extreme(name, generator):
    """Every combination of extreme raw outputs, up to 3,000, each with an observation."""
    columns = SCALES[name][0]
    rows = torch.tensor(EXTREME, dtype=torch.float64)[torch.randint(0, 5, (3000, columns), generator=generator)]
    if columns <= 3:
        rows = torch.tensor(list(itertools.product(EXTREME, repeat=columns)), dtype=torch.float64)
    if name == "Poisson":
        rows = rows.clamp(max=80)  # e^300 is more than float32 can hold
    return rows, draw(name, generator, n=len(rows))[1]


@every_likelihood
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_raw_outputs_give_finite_losses_and_gradients(name, dtype, generator, device):
    raw, y = extreme(name, generator)
    raw, y = raw.to(device, dtype).requires_grad_(), y.to(device)
    nll = LIKELIHOODS[name].nll(raw, y)
    (grad,) = torch.autograd.grad(nll.sum(), raw)
    assert nll.dtype == torch.float32
    assert grad.dtype == dtype
    assert nll.isfinite().all()
    assert grad.isfinite().all() if dtype != torch.float16 else not grad.isnan().any()  # beyond 65504


@every_likelihood
def test_float32_keeps_its_digits_at_extremes(name, generator):
    raw, y = extreme(name, generator)
    y = y.float().double() if y.is_floating_point() else y
    double, single = (LIKELIHOODS[name].nll(r, y) for r in (raw, raw.float()))
    size = 1 + double.abs()
    if name == "multivariate normal":
        size = size.max()  # sums of products of 1e4 and 1e4 that may cancel
    # von Mises: kappa = 1e4 times the rounding of cosine and sine
    assert ((double - single).abs() / size).max() < (0.02 if name == "von Mises" else 2e-5)


def test_poisson_overflows_to_infinity_and_never_to_nan():
    raw = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    nll = losses.poisson_nll(raw, torch.tensor([3, 3]))
    nll.sum().backward()
    assert nll[0] == torch.inf
    assert nll[1].isfinite()
    assert not raw.grad.isnan().any()


@pytest.mark.parametrize("shape", [1e-4, 0.01, 0.9, 9.99, 10.01, 300.0, 1e4])
def test_the_normalizers_are_those_of_long_arithmetic(shape):
    """50 digits: log Gamma, log B and the constant of Student's t at shapes where differences would cancel."""
    mpmath.mp.dps = 50
    raw = torch.tensor([[shape - 1 / shape, 3.0]], dtype=torch.float64)  # positive(s - 1/s) = s
    k, mean = mpmath.mpf(losses.positive(raw)[0, 0].item()), mpmath.mpf(losses.positive(raw)[0, 1].item())
    y = mpmath.mpf(0.25)
    expected = mpmath.loggamma(k) - k * mpmath.log(k / mean) - (k - 1) * mpmath.log(y) + k * y / mean
    got = losses.gamma_nll(raw.flip(1), torch.tensor([0.25])).item()
    assert got == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
    log_beta = mpmath.loggamma(k) + mpmath.loggamma(mean) - mpmath.loggamma(k + mean)
    expected = log_beta - (k - 1) * mpmath.log(y) - (mean - 1) * mpmath.log(1 - y)
    assert losses.beta_nll(raw, torch.tensor([0.25])).item() == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
    expected = (k + 1) / 2 * mpmath.log(1 + y**2 / k) + mpmath.log(k * mpmath.pi) / 2
    expected += mpmath.loggamma(k / 2) - mpmath.loggamma((k + 1) / 2)
    got = losses.student_t_nll(torch.tensor([[0.0, 0.0, raw[0, 0]]], dtype=torch.float64), torch.tensor([0.25])).item()
    assert got == pytest.approx(float(expected), rel=1e-12, abs=1e-12)


def test_small_probabilities_keep_their_digits():
    assert losses.bernoulli_nll(torch.tensor([[30.0]]), torch.tensor([1])).item() == pytest.approx(math.exp(-30))
    logits = torch.tensor([[30.0, 0.0]], dtype=torch.float64)
    assert losses.categorical_nll(logits, torch.tensor([0])).item() == pytest.approx(math.exp(-30), rel=1e-2)


def test_positive_is_its_formula_and_its_own_mirror():
    r = torch.linspace(-5, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(losses.positive(r), (r + (r**2 + 4).sqrt()) / 2)
    torch.testing.assert_close(losses.positive(r) * losses.positive(-r), torch.ones_like(r))
    assert losses.positive(torch.tensor(0.0)) == 1
    torch.testing.assert_close(losses.positive(torch.tensor([-1e4, 1e4])), torch.tensor([1e-4, 1e4]))


def test_the_heads_give_the_parameters_they_name():
    raw = torch.tensor([[1.5, 1.5]])
    two = torch.tensor([2.0])  # positive(1.5)
    torch.testing.assert_close(losses.gamma(raw).mean, two)
    torch.testing.assert_close(losses.gamma(raw).variance, two**2 / 2)
    torch.testing.assert_close(losses.exponential(raw[:, :1]).mean, two)
    torch.testing.assert_close(losses.beta(raw).mean, torch.tensor([0.5]))
    torch.testing.assert_close(losses.von_mises(torch.tensor([[0.0, 3.0]])).loc, torch.tensor([math.pi / 2]))
    torch.testing.assert_close(losses.von_mises(torch.tensor([[0.0, 3.0]])).concentration, torch.tensor([3.0]))
    torch.testing.assert_close(losses.poisson(torch.tensor([[0.0]])).mean, torch.tensor([1.0]))
    torch.testing.assert_close(losses.student_t(torch.tensor([[1.0, 1.5, 0.0]])).df, torch.tensor([1.0]))
    normal = losses.multivariate_normal(torch.tensor([[1.0, 2.0, 1.5, 0.0, 4.0]], dtype=torch.float64))
    factor = torch.tensor([[2.0, 0.0], [4.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(normal.precision_matrix[0], factor @ factor.T)


# Point predictions


def residuals(dtype=torch.float64):
    e = torch.linspace(-5, 5, 101, dtype=dtype)
    return torch.full_like(e, 2.0), e + 2  # prediction, target


def test_point_losses_are_their_formulas():
    f, y = residuals()
    e = y - f
    torch.testing.assert_close(losses.squared(f, y), functional.mse_loss(f, y, reduction="none"))
    torch.testing.assert_close(losses.absolute(f, y), functional.l1_loss(f, y, reduction="none"))
    for delta in (0.5, 1.345, 3.0):
        torch.testing.assert_close(losses.huber(f, y, delta), functional.huber_loss(f, y, reduction="none", delta=delta))
    for c in (0.5, 4.685):
        for r, value in zip(e.tolist(), losses.tukey(f, y, c).tolist(), strict=True):
            expected = integrate.quad(lambda t, c=c: t * max(1 - (t / c) ** 2, 0) ** 2, 0, abs(r), points=[min(c, abs(r))])[0]
            assert value == pytest.approx(expected, abs=1e-10)  # the integral of Tukey's psi
    for tau in (0.1, 0.5, 0.9):
        torch.testing.assert_close(losses.quantile(f, y, tau), e * (tau - (e < 0).double()))
    torch.testing.assert_close(losses.quantile(f, y, 0.5), e.abs() / 2)
    both = losses.quantile(f.expand(2, -1), y.expand(2, -1), torch.tensor([[0.1], [0.9]]))
    torch.testing.assert_close(both[1], losses.quantile(f, y, 0.9))


def test_the_minimizers_are_mean_median_and_quantile(generator):
    y = torch.randn(201, generator=generator, dtype=torch.float64) ** 3
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)

    def argmin(loss):
        pairs = torch.broadcast_tensors(grid[:, None], y)
        return grid[loss(*pairs).mean(1).argmin()].item()

    assert argmin(losses.squared) == pytest.approx(y.mean().item(), abs=1e-3)
    assert argmin(losses.absolute) == pytest.approx(y.median().item(), abs=1e-3)
    tau = 0.8
    assert argmin(lambda f, y: losses.quantile(f, y, tau)) == pytest.approx(y.quantile(tau).item(), abs=0.02)


LIMITS = {
    2.0: lambda u: u / 2,
    1.0: lambda u: np.sqrt(u + 1) - 1,
    0.0: lambda u: np.log(u / 2 + 1),
    -2.0: lambda u: 2 * u / (u + 4),
    -math.inf: lambda u: -np.expm1(-u / 2),
}


@pytest.mark.parametrize("alpha", list(LIMITS))
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_barrons_special_cases_are_exact(alpha, dtype, accuracy):
    f, y = residuals(dtype)
    expected = torch.as_tensor(LIMITS[alpha]((((y - f) / 1.5) ** 2).double().numpy()), dtype=dtype)
    for given in (alpha, torch.tensor(alpha, dtype=dtype)):
        torch.testing.assert_close(losses.barron(f, y, given, 1.5), expected, rtol=accuracy, atol=accuracy)


@pytest.mark.parametrize("alpha", [-50.0, -3.0, -0.5, 0.3, 1.7, 2.5, 4.0])
def test_barrons_general_case_is_the_formula(alpha):
    f, y = residuals()
    u, b = (y - f) ** 2, abs(alpha - 2)
    torch.testing.assert_close(losses.barron(f, y, alpha), b / alpha * ((u / b + 1) ** (alpha / 2) - 1))


@pytest.mark.parametrize("around", [0.0, 2.0, -1e12])
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-7), (torch.float32, 1e-4)])
def test_barron_is_continuous_in_alpha_with_its_gradient_in_the_residual(around, dtype, accuracy):
    f, y = residuals(dtype)
    f.requires_grad_()
    limit = -math.inf if around < -1e9 else around

    def both(alpha):
        value = losses.barron(f, y, alpha)
        return value.detach(), torch.autograd.grad(value.sum(), f)[0]

    exact = both(limit)
    for offset in (1e-30, 1e-15, -1e-12, 1e-9, -1e-9, 1e-8):
        for got, expected in zip(both(around + offset), exact, strict=True):
            torch.testing.assert_close(got, expected, rtol=accuracy, atol=accuracy)


def test_barron_is_monotone_in_alpha_also_where_the_formula_cancels():
    f, y = residuals()
    alphas = [-math.inf, -1e6, -10.0, -1e-3, -1e-7, 0.0, 1e-7, 1e-3, 1.0, 1.999, 2 - 1e-7, 2.0]
    values = torch.stack([losses.barron(f, y, a) for a in alphas])
    assert (values.diff(dim=0) >= -1e-15).all()


@pytest.mark.parametrize("alpha", [-3.0, -1e-3, -1e-9, 0.0, 1e-9, 0.02, 1.0, 1.9])
def test_barrons_derivative_in_alpha_is_the_numerical_one(alpha):
    f, y = residuals()
    a = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(losses.barron(f, y, a).sum(), a)
    step = 1e-5
    numerical = (losses.barron(f, y, alpha + step) - losses.barron(f, y, alpha - step)).sum().item() / (2 * step)
    assert grad.item() == pytest.approx(numerical, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_barrons_gradients_are_finite_everywhere(dtype):
    e = torch.tensor([0.0, 1e-8, 1e-3, 1.0, 1e4, 1e6], dtype=dtype)
    for alpha in (-math.inf, -1e9, -1.0, -1e-8, 0.0, 1e-8, 1.0, 1.9999999, 2.0):
        f = torch.zeros_like(e, requires_grad=True)
        a = torch.tensor(alpha, dtype=dtype, requires_grad=True)
        c = torch.tensor(1.0, dtype=dtype, requires_grad=True)
        value = losses.barron(f, e, a, c)
        for grad in torch.autograd.grad(value.sum(), (f, a, c)):
            assert grad.isfinite().all()


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.4, 1.0, 1.6, 1.99, 2.0])
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-9), (torch.float32, 5e-6)])
def test_the_adaptive_loss_is_a_density(alpha, dtype, accuracy):
    zero, scale = torch.zeros(1, dtype=dtype), torch.tensor(1.7, dtype=dtype)
    nll = losses.barron_nll(zero, zero, torch.tensor(alpha, dtype=dtype), scale).item()

    def rho(x):
        u, b = (x / 1.7) ** 2, 2 - alpha
        if alpha in (0.0, 2.0):
            return LIMITS[alpha](u)
        return b / alpha * np.expm1(alpha / 2 * np.log1p(u / b))

    pieces = zip((0, 1, 10, 100, 1e4), (1, 10, 100, 1e4, np.inf), strict=True)
    total = 2 * sum(integrate.quad(lambda x: math.exp(-rho(x)), *ends, epsabs=1e-13, limit=400)[0] for ends in pieces)
    assert nll == pytest.approx(math.log(total), abs=accuracy)


def test_the_adaptive_loss_takes_numbers_and_is_integrated_in_float32_at_least():
    f, y = torch.zeros(2), torch.ones(2)
    expected = losses.barron_nll(f, y, torch.tensor(1.0), torch.tensor(1.0))
    torch.testing.assert_close(losses.barron_nll(f, y, 1.0, 1.0), expected)
    half = torch.tensor(1.0, dtype=torch.bfloat16)
    torch.testing.assert_close(losses.barron_nll(f.bfloat16(), y, half, half), expected)


def test_the_adaptive_loss_ends_in_the_normal_and_the_cauchy():
    f, y = residuals()
    scale = torch.tensor(1.3, dtype=torch.float64)
    normal, cauchy = (losses.barron_nll(f, y, torch.tensor(a, dtype=torch.float64), scale) for a in (2.0, 0.0))
    e = (y - f).numpy()
    np.testing.assert_allclose(normal, -stats.norm.logpdf(e, scale=1.3), rtol=1e-12)
    np.testing.assert_allclose(cauchy, -stats.cauchy.logpdf(e, scale=1.3 * 2**0.5), rtol=1e-12)


def test_the_adaptive_losss_gradient_is_the_numerical_one():
    f, y = residuals()
    alpha, scale = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.2, 0.8))
    assert torch.autograd.gradcheck(lambda a, c: losses.barron_nll(f, y, a, c), (alpha, scale), atol=1e-6)
    for dtype in (torch.float32, torch.float64):
        for value in (0.0, 1e-7, 1.9999, 2.0):
            a = torch.tensor(value, dtype=dtype, requires_grad=True)
            losses.barron_nll(f.to(dtype), y.to(dtype), a, scale.to(dtype)).sum().backward()
            assert a.grad.isfinite()


# Classifiers


def classifier(generator, n=50, classes=4):
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (n,), generator=generator)


def test_the_cross_entropies_are_pytorchs(generator):
    logits, y = classifier(generator)
    p = (2 * torch.randn(50, 4, generator=generator, dtype=torch.float64)).softmax(1)
    reduction = {"reduction": "none"}
    torch.testing.assert_close(losses.categorical_nll(logits, y), functional.cross_entropy(logits, y, **reduction))
    torch.testing.assert_close(losses.cross_entropy(logits, p), functional.cross_entropy(logits, p, **reduction))
    kl = functional.kl_div(logits.log_softmax(1), p, reduction="none").sum(1)
    torch.testing.assert_close(losses.kl_divergence(logits, p), kl)
    entropy = torch.special.entr(p).sum(1)
    torch.testing.assert_close(losses.cross_entropy(logits, p), losses.kl_divergence(logits, p) + entropy)
    smooth = functional.cross_entropy(logits, y, label_smoothing=0.2, **reduction)
    torch.testing.assert_close(losses.cross_entropy(logits, losses.smooth_labels(y, 4, 0.2).double()), smooth)
    one_hot = losses.smooth_labels(y, 4, 0.0).double()
    torch.testing.assert_close(losses.cross_entropy(logits, one_hot), losses.categorical_nll(logits, y))
    torch.testing.assert_close(losses.kl_divergence(logits, one_hot), losses.categorical_nll(logits, y))
    binary = functional.binary_cross_entropy_with_logits(logits[:, 0], (y > 1).double(), **reduction)
    torch.testing.assert_close(losses.bernoulli_nll(logits[:, :1], (y > 1).long()), binary)


def test_the_focal_loss_is_its_formula(generator):
    logits, y = classifier(generator)
    q = logits.softmax(1)[range(50), y]
    for gamma in (0.0, 0.5, 2.0):
        torch.testing.assert_close(losses.focal(logits, y, gamma), -((1 - q) ** gamma) * q.log())
    torch.testing.assert_close(losses.focal(logits, y), losses.focal(logits, y, 2.0))
    torch.testing.assert_close(losses.focal(logits, y, 0.0), losses.categorical_nll(logits, y))


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_von_mises_of_raw_outputs_whose_squares_are_no_float32(size):
    angle = torch.tensor([0.3, -2.0, 3.0])
    raw = (size * torch.stack([angle.cos(), angle.sin()], 1)).requires_grad_()
    near, far = losses.von_mises_nll(raw, angle), losses.von_mises_nll(raw, -angle)
    (near + far).sum().backward()
    assert raw.grad.isfinite().all()
    uniform = torch.full((3,), math.log(2 * math.pi))
    if size < 1:
        torch.testing.assert_close(near, uniform)
    else:  # log I_0(k) is k - log(2 pi k) / 2 up to 1 / (8 k); far is k (1 - cos 2 y) more
        expected = size * (1 - (2 * angle).cos())
        torch.testing.assert_close(far, expected, rtol=1e-5, atol=0)
        assert (near < 1e-5 * far).all()


@pytest.mark.parametrize("loss", [losses.categorical_nll, losses.focal])
def test_extreme_logits_never_give_nan(loss, device):
    values = torch.tensor(list(itertools.product(EXTREME, repeat=3)), device=device)
    for label in range(3):
        raw = values.clone().requires_grad_()
        value = loss(raw, torch.full((len(values),), label, device=device))
        value.sum().backward()
        assert value.isfinite().all()
        assert raw.grad.isfinite().all()
    target = torch.tensor([0.0, 0.3, 0.7], device=device).expand(len(values), 3)
    for soft in (losses.cross_entropy, losses.kl_divergence):
        raw = values.clone().requires_grad_()
        soft(raw, target).sum().backward()
        assert raw.grad.isfinite().all()


def test_labels_of_any_integer_type_and_integers_as_predictions(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # readers have no checks of types
    raw, y = torch.tensor([[0.5, -1.0], [0.0, 2.0]]), torch.tensor([1, 0])
    for dtype in (torch.int8, torch.int16, torch.int32, torch.uint8):
        for loss in (losses.categorical_nll, losses.focal):
            torch.testing.assert_close(loss(raw, y.to(dtype)), loss(raw, y))
        order = torch.stack([y, 1 - y], 1)
        torch.testing.assert_close(losses.plackett_luce_nll(raw, order.to(dtype)), losses.plackett_luce_nll(raw, order))
    assert losses.squared(torch.tensor([1]), torch.tensor([2.5])).tolist() == [2.25]  # the target is not rounded
    torch.testing.assert_close(losses.categorical_nll(raw.long(), y), losses.categorical_nll(raw.long().float(), y))


def test_the_brier_score_by_hand():
    half = torch.tensor([[0.2, 0.8]], dtype=torch.bfloat16)
    assert losses.brier(half, torch.tensor([1])).dtype == torch.float32
    q = torch.tensor([[0.2, 0.3, 0.5]])
    assert losses.brier(q, torch.tensor([2])).item() == pytest.approx(0.04 + 0.09 + 0.25)
    two = torch.tensor([[0.2, 0.8]])
    assert losses.brier(two, torch.tensor([1])).item() == pytest.approx(2 * 0.2**2)


def test_dice_is_that_of_two_sets():
    a = torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    b = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 0]]])
    plain = losses.dice(a, b, smooth=0.0)
    assert plain[0].item() == pytest.approx(1 - 2 * 2 / (3 + 2))
    assert plain[1].isnan()  # two empty sets
    smooth = losses.dice(a, b)
    assert smooth[0].item() == pytest.approx(1 - (2 * 2 + 1) / (3 + 2 + 1))
    assert smooth[1].item() == 0
    assert losses.dice(b.float(), b).tolist() == [0, 0]
    soft = losses.dice(torch.tensor([[0.5, 0.25]]), torch.tensor([[1, 0]]), smooth=2.0)
    assert soft.item() == pytest.approx(1 - (2 * 0.5 + 2) / (0.75 + 1 + 2))


def test_class_balanced_weights_are_cuis_and_have_both_limits():
    counts = torch.tensor([900, 90, 10])
    raw = torch.tensor([(1 - 0.99) / (1 - 0.99**n) for n in counts.tolist()], dtype=torch.float64)
    torch.testing.assert_close(losses.class_balanced_weights(counts, 0.99), 3 * raw / raw.sum())
    assert losses.class_balanced_weights(counts, 0.0).tolist() == [1, 1, 1]
    inverse = 1 / counts.double()
    torch.testing.assert_close(
        losses.class_balanced_weights(counts, 1 - 1e-9), 3 * inverse / inverse.sum(), rtol=1e-5, atol=0
    )


# At the door, on the device, compiled


NAN = float("nan")
R, Z = torch.zeros(3, 2), torch.zeros(3)
LABELS = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(("call", "exception", "message"), [
    (lambda: losses.normal_nll(R, torch.zeros(3, 1)), ValueError, r"raw must have shape \(3, 1, 2\) .* got \(3, 2\)"),
    (lambda: losses.normal_nll(torch.zeros(3, 3), Z), ValueError, r"raw must have shape \(3, 2\) .* got \(3, 3\)"),
    (lambda: losses.normal_nll(R + NAN, Z), ValueError, "raw must be finite, got nan"),
    (lambda: losses.normal_nll(R, Z + torch.inf), ValueError, "y must be finite, got inf"),
    (lambda: losses.normal_mixture_nll(torch.zeros(3, 4), Z), ValueError, r"raw must have 3 K columns .* \(3, 4\)"),
    (lambda: losses.normal_mixture_nll(torch.zeros(3, 0), Z), ValueError, r"raw must have 3 K columns .* \(3, 0\)"),
    (lambda: losses.exponential_nll(R[:, :1], Z - 1), ValueError, "y must be at least 0, got -1.0"),
    (lambda: losses.gamma_nll(R, Z), ValueError, "y must be positive, got 0.0"),
    (lambda: losses.beta_nll(R, Z), ValueError, "y must be strictly between 0 and 1, got 0.0"),
    (lambda: losses.beta_nll(R, Z + 1), ValueError, "y must be strictly between 0 and 1, got 1.0"),
    (lambda: losses.multivariate_normal_nll(torch.zeros(3, 4), torch.zeros(3, 2)), ValueError,
     r"raw must have shape \(3, 5\) for y of shape \(3, 2\), got \(3, 4\)"),
    (lambda: losses.multivariate_normal_nll(torch.zeros(3, 5), torch.full((3, 2), NAN)), ValueError, "y must be finite"),
    (lambda: losses.von_mises_nll(R, Z + 67), ValueError, "y must be angles in radians from -pi to pi, got 67.0"),
    (lambda: losses.bernoulli_nll(R[:, :1], Z + 0.5), ValueError, "y must be labels 0 or 1, got 0.5"),
    (lambda: losses.categorical_nll(R, LABELS + 1), ValueError, "y must be labels from 0 to 1, got 2"),
    (lambda: losses.categorical_nll(R, LABELS - 1), ValueError, "y must be labels from 0 to 1, got -1"),
    (lambda: losses.categorical_nll(R, Z), TypeError, "y must be integers, got torch.float32"),
    (lambda: losses.categorical_nll(R, LABELS[:2]), ValueError, r"y must have shape \(3,\), .* got \(2,\)"),
    (lambda: losses.categorical_nll(R + NAN, LABELS), ValueError, "raw must be finite, got nan"),
    (lambda: losses.poisson_nll(R[:, :1], Z - 1), ValueError, r"y must be counts 0, 1, 2, ..., got -1.0"),
    (lambda: losses.poisson_nll(R[:, :1], Z + 0.5), ValueError, r"y must be counts 0, 1, 2, ..., got 0.5"),
    (lambda: losses.plackett_luce_nll(R, torch.tensor([[0, 1], [1, 1], [1, 0]])), ValueError,
     r"y must be permutations of 0, ..., 1, one a row, got 1"),
    (lambda: losses.plackett_luce_nll(R, torch.tensor([[1, 2], [2, 1], [2, 1]])), ValueError, "permutations"),
    (lambda: losses.plackett_luce_nll(R, R), TypeError, "y must be integers, got torch.float32"),
    (lambda: losses.plackett_luce_nll(R, torch.tensor([[0, 1]])), ValueError, r"same shape .* \(3, 2\) and \(1, 2\)"),
    (lambda: losses.squared(Z, torch.zeros(3, 1)), ValueError, r"same shape, got \(3,\) and \(3, 1\)"),
    (lambda: losses.absolute(Z, Z + NAN), ValueError, "target must be finite, got nan"),
    (lambda: losses.absolute(Z + NAN, Z), ValueError, "prediction must be finite, got nan"),
    (lambda: losses.quantile(Z, Z, 1.0), ValueError, "tau must be strictly between 0 and 1, got 1.0"),
    (lambda: losses.quantile(Z, Z, 0.0), ValueError, "tau must be strictly between 0 and 1, got 0.0"),
    (lambda: losses.quantile(Z, Z, NAN), ValueError, "tau must be strictly between 0 and 1, got nan"),
    (lambda: losses.huber(Z, Z, 0.0), ValueError, "delta must be positive and finite, got 0.0"),
    (lambda: losses.huber(Z, Z, NAN), ValueError, "delta must be positive and finite, got nan"),
    (lambda: losses.tukey(Z, Z, -1.0), ValueError, "c must be positive and finite, got -1.0"),
    (lambda: losses.barron(Z, Z, 1.0, 0.0), ValueError, "scale must be positive and finite, got 0.0"),
    (lambda: losses.barron(Z, Z, NAN), ValueError, "alpha must be a real number or -inf, got nan"),
    (lambda: losses.barron(Z, Z, math.inf), ValueError, "alpha must be a real number or -inf, got inf"),
    (lambda: losses.barron_nll(Z, Z, torch.tensor(2.5), torch.tensor(1.0)), ValueError, "alpha must be from 0 to 2"),
    (lambda: losses.barron_nll(Z, Z, torch.tensor(-0.5), torch.tensor(1.0)), ValueError, "alpha must be from 0 to 2"),
    (lambda: losses.barron_nll(Z, Z, torch.tensor(1.0), torch.tensor(-1.0)), ValueError, "scale must be positive"),
    (lambda: losses.barron_nll(Z, Z, torch.ones(2), torch.tensor(1.0)), ValueError, r"alpha must have no axes, .* \(2,\)"),
    (lambda: losses.barron_nll(Z, Z, 1.0, torch.ones(3)), ValueError, r"scale must have no axes, got shape \(3,\)"),
    (lambda: losses.cross_entropy(R, R - 0.1), ValueError, r"probabilities must be in \[0, 1\], got -0.1"),
    (lambda: losses.cross_entropy(R, R + NAN), ValueError, r"probabilities must be in \[0, 1\], got nan"),
    (lambda: losses.kl_divergence(R, R + 0.4), ValueError, "probabilities must have sum 1 in each row, got 0.8"),
    (lambda: losses.cross_entropy(R, torch.full((3, 1), 1.0)), ValueError, r"same shape .* \(3, 2\) and \(3, 1\)"),
    (lambda: losses.smooth_labels(LABELS, 2, 1.5), ValueError, "epsilon must be from 0 to 1, got 1.5"),
    (lambda: losses.smooth_labels(LABELS, 1, 0.1), ValueError, "y must be labels from 0 to 0, got 1"),
    (lambda: losses.focal(R, LABELS, -1.0), ValueError, "gamma must be at least 0 and finite, got -1.0"),
    (lambda: losses.focal(R[:, :1], 0 * LABELS), ValueError, r"at least two classes, got shape \(3, 1\)"),
    (lambda: losses.focal(R, LABELS + 1), ValueError, "y must be labels from 0 to 1, got 2"),
    (lambda: losses.brier(R + 1, LABELS), ValueError, "probabilities must have sum 1 in each row, got 2.0"),
    (lambda: losses.brier(R + 2, LABELS), ValueError, r"probabilities must be in \[0, 1\], got 2.0"),
    (lambda: losses.brier(R + 0.5, Z), TypeError, "y must be integers"),
    (lambda: losses.dice(R + 2, R), ValueError, r"probabilities must be in \[0, 1\], got 2.0"),
    (lambda: losses.dice(R + NAN, R), ValueError, r"probabilities must be in \[0, 1\], got nan"),
    (lambda: losses.dice(R, R + 0.5), ValueError, "target must be 0 or 1, got 0.5"),
    (lambda: losses.dice(R, Z), ValueError, r"same shape \(n, ...\), got \(3, 2\) and \(3,\)"),
    (lambda: losses.dice(R, R, -1.0), ValueError, "smooth must be at least 0 and finite, got -1.0"),
    (lambda: losses.class_balanced_weights(LABELS, 0.9), ValueError, "counts must be at least 1, got 0"),
    (lambda: losses.class_balanced_weights(LABELS + 1, 1.0), ValueError, "beta must be at least 0 and below 1, got 1.0"),
])  # fmt: skip
def test_bad_input_is_refused(call, exception, message):
    with refuses(exception, message):
        call()


def test_the_ends_of_the_domains_are_in():
    assert losses.exponential_nll(R[:, :1], Z).tolist() == [0, 0, 0]
    pi = torch.full((3,), math.pi)
    torch.testing.assert_close(losses.von_mises_nll(R + 1, pi), losses.von_mises_nll(R + 1, -pi))


CALLS = {
    **{name: lambda raw, y, name=name: LIKELIHOODS[name].nll(raw, y) for name in LIKELIHOODS},
    "huber": lambda raw, y: losses.huber(raw[:, 0], y, 1.0),
    "tukey": lambda raw, y: losses.tukey(raw[:, 0], y, 1.0),
    "quantile": lambda raw, y: losses.quantile(raw[:, 0], y, 0.3),
    "barron": lambda raw, y: losses.barron(raw[:, 0], y, 0.0),
    "barron_nll": lambda raw, y: losses.barron_nll(raw[:, 0], y, raw[0, 1].sigmoid(), raw[0, 0].exp()),
    "focal": lambda raw, y: losses.focal(raw, (y > 0).long()),
    "dice": lambda raw, y: losses.dice(raw.sigmoid(), (raw > 0).long()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CALLS))
def test_one_graph_under_torch_compile_without_the_checks_of_values(name, generator, monkeypatch):
    """The eager backend traces and needs no C++ compiler; the run-time checks of shapes cannot be traced."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.compiler.reset()
    raw, y = draw(name if name in SCALES else "normal", generator)
    compiled = torch.compile(CALLS[name], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(raw, y), CALLS[name](raw, y))
    if name == "normal":
        assert compiled(raw * NAN, y).isnan().all()  # nobody looked
        with pytest.raises(ValueError, match="raw must be finite"):
            CALLS[name](raw * NAN, y)


@pytest.mark.parametrize("name", list(CALLS))
def test_any_device_and_autocast(name, generator, device):
    raw, y = draw(name if name in SCALES else "normal", generator, dtype=torch.float32)
    raw, y = raw.to(device), y.to(device)
    expected = CALLS[name](raw, y)
    assert expected.device.type == device.type
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(CALLS[name](raw, y), expected, rtol=0.05, atol=0.05)
