import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from deepstat.foundations import initialization
from deepstat.foundations.activations import ACTIVATIONS
from deepstat.foundations.initialization import (
    SCHEMES,
    fans,
    gaussian_mean,
    gradient_factor,
    he_normal_,
    initialize,
    lecun_normal_,
    next_variance,
    orthogonal_,
    signals,
    standard_normal_,
    torch_default_,
    xavier_normal_,
    xavier_uniform_,
    zero_,
)
from deepstat.foundations.mlp import MLP
from helpers import refuses

SHAPES = [(30, 50), (50, 30), (12, 6, 3, 5), (8, 4, 7)]


def drawn(fill, shape, seed=0, dtype=torch.float64, **options):
    weight = torch.full(shape, float("nan"), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    assert fill(weight, generator=generator, **options) is weight
    return weight


LIBRARY = {  # ours, PyTorch's own
    "xavier_uniform_": (xavier_uniform_, nn.init.xavier_uniform_),
    "xavier_uniform_(gain)": (
        lambda w, generator: xavier_uniform_(w, gain=5 / 3, generator=generator),
        lambda w, generator: nn.init.xavier_uniform_(w, nn.init.calculate_gain("tanh"), generator=generator),
    ),
    "xavier_normal_": (
        lambda w, generator: xavier_normal_(w, gain=0.5, generator=generator),
        lambda w, generator: nn.init.xavier_normal_(w, gain=0.5, generator=generator),
    ),
    "he_normal_": (
        he_normal_,
        lambda w, generator: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator),
    ),
    "he_normal_(fan_out)": (
        lambda w, generator: he_normal_(w, mode="fan_out", generator=generator),
        lambda w, generator: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=generator),
    ),
    "he_normal_(leaky)": (
        lambda w, generator: he_normal_(w, gain=math.sqrt(2 / 1.04), generator=generator),
        lambda w, generator: nn.init.kaiming_normal_(w, a=0.2, generator=generator),
    ),
    "lecun_normal_": (
        lecun_normal_,
        lambda w, generator: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=generator),
    ),
    "torch_default_": (
        torch_default_,
        lambda w, generator: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=generator),
    ),
    "standard_normal_": (standard_normal_, nn.init.normal_),
}


@pytest.mark.parametrize(("ours", "library"), LIBRARY.values(), ids=list(LIBRARY))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_draws_are_pytorchs(ours, library, shape):
    torch.testing.assert_close(drawn(ours, shape), drawn(library, shape), rtol=1e-12, atol=0)


VARIANCES = {  # fill, variance from (fan_in, fan_out), family
    "xavier_uniform_": (xavier_uniform_, lambda i, o: 2 / (i + o), "uniform"),
    "xavier_normal_": (xavier_normal_, lambda i, o: 2 / (i + o), "normal"),
    "he_normal_": (he_normal_, lambda i, o: 2 / i, "normal"),
    "lecun_normal_": (lecun_normal_, lambda i, o: 1 / i, "normal"),
    "torch_default_": (torch_default_, lambda i, o: 1 / (3 * i), "uniform"),
    "standard_normal_": (standard_normal_, lambda i, o: 1.0, "normal"),
}


@pytest.mark.parametrize(("fill", "variance", "family"), VARIANCES.values(), ids=list(VARIANCES))
@pytest.mark.parametrize("shape", [(200, 300), (120, 60, 3, 5)])
def test_the_distribution(fill, variance, family, shape):
    """Kolmogorov–Smirnov against SciPy, the variance to 5 standard errors of its estimate, the uniform's bounds."""
    area = math.prod(shape[2:])
    value = variance(shape[1] * area, shape[0] * area)
    x = drawn(fill, shape).flatten().numpy()
    spread = math.sqrt(value)
    law = stats.norm(0, spread) if family == "normal" else stats.uniform(-spread * 3**0.5, 2 * spread * 3**0.5)
    assert stats.kstest(x, law.cdf).pvalue > 1e-4
    fourth = 3.0 if family == "normal" else 1.8
    error = value * math.sqrt((fourth - 1) / x.size)
    assert abs(np.mean(x**2) - value) < 5 * error
    if family == "uniform":
        assert 0.999 * law.support()[1] < np.abs(x).max() <= law.support()[1]


def test_zero_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    assert (zero_(torch.ones(3, 4), generator=generator) == 0).all()


def test_fans_are_pytorchs_count():
    for layer in (nn.Linear(7, 3), nn.Conv1d(4, 6, 5), nn.Conv2d(3, 8, (3, 5)), nn.Conv3d(2, 4, 3)):
        assert fans(layer.weight) == nn.init._calculate_fan_in_and_fan_out(layer.weight)
    assert fans(nn.Linear(7, 3).weight) == (7, 3)
    assert fans(nn.Conv2d(6, 8, 3, groups=2).weight) == (27, 72)


def test_pytorchs_layers_start_as_torch_default_says():
    torch.manual_seed(0)
    for layer in (nn.Linear(50, 400), nn.Conv2d(6, 200, 3)):
        bound = 1 / math.sqrt(fans(layer.weight)[0])
        for parameter in (layer.weight, layer.bias):
            x = parameter.detach().double().flatten().numpy()
            assert np.abs(x).max() <= bound * (1 + 1e-6)
            assert stats.kstest(x, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(9, 9), (9, 5), (5, 9), (4, 3, 2, 2), (20, 3, 2, 2)])
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_the_shorter_side_is_orthonormal(shape, gain):
    w = drawn(orthogonal_, shape, gain=gain).flatten(1)
    gram = w.mT @ w if shape[0] >= w.shape[1] else w @ w.mT
    torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram), dtype=w.dtype), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(6, 6), (7, 4), (4, 7)])
def test_orthogonal_is_pytorchs(shape):
    ours, theirs = drawn(orthogonal_, shape), drawn(nn.init.orthogonal_, shape)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.slow
def test_the_orthogonal_matrix_is_haar():
    """Moments of an entry and of the trace; QR without the sign correction fails the trace by far."""
    generator, n, draws = torch.Generator().manual_seed(0), 4, 4000
    w = torch.stack([orthogonal_(torch.empty(n, n, dtype=torch.float64), generator=generator) for _ in range(draws)])
    entry, trace, det = w[:, 1, 2], w.diagonal(dim1=1, dim2=2).sum(1), torch.linalg.det(w)
    corner = w[:, 0, 0]
    moments = {  # sample, exact mean: Diaconis and Shahshahani for the trace, a beta law for an entry
        "entry^2": (entry**2, 1 / n),
        "entry^4": (entry**4, 3 / (n * (n + 2))),
        "corner": (corner, 0.0),
        "trace": (trace, 0.0),
        "trace^2": (trace**2, 1.0),
        "trace^4": (trace**4, 3.0),
        "det": (det, 0.0),
    }
    for name, (sample, mean) in moments.items():
        error = sample.std() / math.sqrt(draws)
        assert abs(sample.mean() - mean) < 4 * error, name
    beta = stats.beta(0.5, (n - 1) / 2)
    assert stats.kstest((corner**2).numpy(), beta.cdf).pvalue > 1e-3


def test_the_variance_of_an_orthogonal_entry_is_one_over_the_longer_side():
    for shape in ((30, 10), (10, 30)):
        w = drawn(orthogonal_, shape)
        assert w.square().mean().item() == pytest.approx(1 / 30, rel=1e-12)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_any_dtype_any_device_and_no_gradient(name, dtype, device):
    weight = nn.Parameter(torch.empty(16, 24, dtype=dtype, device=device))
    generator = torch.Generator(device).manual_seed(0)
    assert SCHEMES[name](weight, generator=generator) is weight
    assert weight.dtype == dtype
    assert weight.isfinite().all()
    assert weight.requires_grad
    assert weight.grad_fn is None


def test_initialize_reaches_every_layer_and_leaves_the_rest():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(8, 3, bias=False))
    assert initialize(model, "zero", bias=0.25) is model
    assert (model[0].weight == 0).all()
    assert (model[3].weight == 0).all()
    assert (model[0].bias == 0.25).all()
    assert (model[1].weight == 1).all()
    first, second = (
        initialize(MLP((4, 5, 2)), "He", generator=torch.Generator().manual_seed(3)).layers[1].weight for _ in range(2)
    )
    assert torch.equal(first, second)


def test_the_global_generator_is_used_without_one():
    torch.manual_seed(0)
    first = he_normal_(torch.empty(4, 4))
    torch.manual_seed(0)
    assert torch.equal(first, he_normal_(torch.empty(4, 4)))


FUNCTIONS = {
    "1": (lambda z: torch.ones_like(z), lambda q: 1.0),
    "z^2": (lambda z: z**2, lambda q: q),
    "relu": (lambda z: z.clamp(min=0), lambda q: math.sqrt(q / (2 * math.pi))),
    "exp": (lambda z: z.exp(), lambda q: math.exp(q / 2)),
    "cos": (lambda z: z.cos(), lambda q: math.exp(-q / 2)),
    "step": (lambda z: (z > 0).to(z), lambda q: 0.5 if q else 0.0),
}


@pytest.mark.parametrize(("function", "exact"), FUNCTIONS.values(), ids=list(FUNCTIONS))
@pytest.mark.parametrize("variance", [0.0, 0.01, 1.0, 4.0])
def test_gaussian_means_in_closed_form(function, exact, variance):
    assert gaussian_mean(function, variance) == pytest.approx(exact(variance), rel=1e-11, abs=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("variance", [0.1, 1.0, 30.0, 400.0])
def test_both_maps_against_scipys_quadrature(name, variance):
    def mean(function):
        def integrand(z):
            return function(torch.tensor(math.sqrt(variance) * z, dtype=torch.float64)).item() ** 2 * stats.norm.pdf(z)

        cuts = (-12, -1, -0.1, 0, 0.1, 1, 12)
        return sum(integrate.quad(integrand, a, b)[0] for a, b in zip(cuts[:-1], cuts[1:], strict=True))

    a = ACTIVATIONS[name]
    forward, backward = mean(a.function), mean(a.derivative)
    assert next_variance(name, variance, 1.7, 0.3) == pytest.approx(1.7 * forward + 0.3, rel=1e-7)
    assert gradient_factor(name, variance, 1.7) == pytest.approx(1.7 * backward, rel=1e-7)


def test_known_fixed_points():
    assert next_variance("selu", 1.0, 1.0) == pytest.approx(1, abs=1e-10)
    for q in (0.01, 1.0, 50.0):
        assert next_variance("relu", q, 2.0) == pytest.approx(q, rel=1e-12)
        assert gradient_factor("relu", q, 2.0) == pytest.approx(1, rel=1e-12)
        slope = 0.01
        assert gradient_factor("leaky_relu", q, 2 / (1 + slope**2)) == pytest.approx(1, rel=1e-12)
    q = 1e-4  # tanh^2 z = z^2 - 2 z^4 / 3 + 17 z^6 / 45 and tanh' ^2 = 1 - 2 z^2 + ...
    assert next_variance("tanh", q, 1.0) == pytest.approx(q - 2 * q**2 + 17 * q**3 / 3, rel=1e-9)
    assert gradient_factor("tanh", q, 1.0) == pytest.approx(1 - 2 * q, rel=1e-6)


def test_signals_are_what_hooks_see(generator):
    model = initialize(MLP((3, 6, 5, 2), "tanh"), "Xavier", generator=generator).double()
    x = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    seen = signals(model, x, lambda y: y.square().sum(1))
    h1 = torch.tanh(model.layers[0](x)).detach().requires_grad_()
    h2 = torch.tanh(model.layers[1](h1))
    h2.retain_grad()
    model.layers[2](h2).square().sum().backward()
    expected = [(h1 ** 2).mean(), (h2 ** 2).mean()]
    torch.testing.assert_close(seen.activations, torch.stack(expected).detach())
    torch.testing.assert_close(seen.gradients, torch.stack([h1.grad.square().mean(), h2.grad.square().mean()]))
    weights = [layer.weight for layer in model.layers[:2]]
    rows = [torch.autograd.grad(model(row).square().sum(), weights) for row in x]
    grads = [torch.stack([row[k].square().mean() for row in rows]).mean() for k in range(2)]
    torch.testing.assert_close(seen.weight_gradients, torch.stack(grads))


def test_signals_leave_the_model_alone(device):
    model = MLP((3, 4, 1)).to(device)
    signals(model, torch.ones(2, 3, device=device), lambda y: y[:, 0])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["He", "orthogonal"])
def test_the_exact_second_moments_of_relu_networks(scheme):
    """The chapter's theorem on a funnel of widths, for independent and for orthogonal weights."""
    widths, draws = (5, 8, 3, 6), 1000
    v = {"He": [2 / 5, 2 / 8, 2 / 3, 2 / 6], "orthogonal": [1 / 8, 1 / 8, 1 / 6, 1 / 6]}[scheme]  # of a weight
    generator = torch.Generator().manual_seed(1)
    x = torch.tensor([[0.5, -1.0, 2.0, 0.1, 0.3]], dtype=torch.float64)
    model = MLP((*widths, 1)).double()
    found = []
    for _ in range(draws):
        seen = signals(initialize(model, scheme, generator=generator), x, lambda y: y[:, 0])
        found.append(torch.cat([*seen]))
    norms = [x.square().sum().item()]  # of h_0, ..., h_3
    for k in range(3):
        norms.append(norms[-1] * widths[k + 1] * v[k] / 2)
    c = [v[3]]  # of g_1, g_2, g_3
    for k in (2, 1):
        c.insert(0, c[0] * widths[k + 1] * v[k] / 2)
    alive = [1 - 2**-8, (1 - 2**-8) * (1 - 2**-3), 1]  # where h_k = 0 and k < 3 the gradient is 0
    exact = [norm / width for norm, width in zip(norms[1:], widths[1:], strict=True)]
    exact += [a * b for a, b in zip(c, alive, strict=True)]
    exact += [c[k] / 2 * norms[k] / widths[k] for k in range(3)]
    for sample, value in zip(torch.stack(found).T, exact, strict=True):
        assert abs(sample.mean() - value) < 4 * sample.std() / math.sqrt(draws) + 1e-14


@pytest.mark.parametrize(("call", "exception", "match"), [
    (lambda: fans(torch.ones(3)), ValueError, r"weight must have shape .*got \(3,\)"),
    (lambda: fans(torch.ones(3, 0)), ValueError, r"got \(3, 0\)"),
    (lambda: fans(torch.ones(3, 3, dtype=torch.int64)), TypeError, "weight must be .*int64"),
    (lambda: he_normal_(np.ones((3, 3))), TypeError, "weight must be .*ndarray"),
    (lambda: he_normal_(torch.ones(3, 3), mode="fan"), ValueError, "mode must be .*'fan'"),
    (lambda: xavier_uniform_(torch.ones(3, 3), gain=-1.0), ValueError, "gain must be at least 0 .*-1"),
    (lambda: xavier_normal_(torch.ones(3, 3), gain=math.nan), ValueError, "gain .*nan"),
    (lambda: orthogonal_(torch.ones(3, 3), gain=math.inf), ValueError, "gain .*inf"),
    (lambda: orthogonal_(torch.ones(3)), ValueError, "weight"),
    (lambda: initialize(nn.Linear(2, 2), "xavier"), ValueError, "scheme must be one of .*'xavier'"),
    (lambda: initialize(nn.ReLU(), "He"), ValueError, "model must have .*ReLU"),
    (lambda: gaussian_mean(torch.exp, -1.0), ValueError, "variance must be .*-1"),
    (lambda: next_variance("swish", 1.0, 1.0), ValueError, "activation must be one of .*'swish'"),
    (lambda: next_variance("relu", 1.0, -2.0), ValueError, "weight_scale .*-2"),
    (lambda: next_variance("relu", 1.0, 2.0, -1.0), ValueError, "bias_variance .*-1"),
    (lambda: gradient_factor("relu", math.inf, 1.0), ValueError, "variance .*inf"),
    (lambda: gradient_factor("relu", 1.0, -1.0), ValueError, "weight_scale"),
    (lambda: signals(nn.Linear(2, 1), torch.ones(1, 2), torch.sum), TypeError, "model must be an MLP, got Linear"),
    (lambda: signals(MLP((2, 1)), torch.ones(1, 2), torch.sum), ValueError, "hidden layer"),
    (lambda: signals(MLP((2, 3, 1)), torch.ones(4, 2), torch.sum), ValueError, r"score must give shape \(4,\)"),
])  # fmt: skip
def test_bad_input_is_refused(call, exception, match):
    with refuses(exception, match):
        call()


def test_the_table_of_schemes_is_complete():
    assert set(SCHEMES.values()) == {
        zero_, standard_normal_, torch_default_, lecun_normal_, xavier_normal_, xavier_uniform_, he_normal_,
        initialization.orthogonal_,
    }  # fmt: skip
