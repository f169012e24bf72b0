import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.vision import pooling
from helpers import refuses

SETTINGS = [  # kernel, stride, padding
    (2, None, 0),
    (3, 1, 0),
    (3, 2, 1),
    (1, 1, 0),
    ((2, 3), (1, 2), (1, 0)),
    (4, 3, 2),
]
settings = pytest.mark.parametrize(("kernel", "stride", "padding"), SETTINGS)
SLIDE = torch.tensor([  # the lecture's example, and the maximum of its 3 x 3 windows
    [3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]
], dtype=torch.float32)[None, None]  # fmt: skip


@pytest.fixture
def x(generator, device):
    return torch.randn(2, 3, 9, 8, generator=generator, dtype=torch.float64).to(device)


@settings
def test_windows_hold_the_pixels_that_the_formula_says(x, kernel, stride, padding):
    found = pooling.windows(x, kernel, stride, padding, fill=-7.0)
    (kh, kw), (ph, pw) = pooling.pair("kernel_size", kernel, 1), pooling.pair("padding", padding, 0)
    sh, sw = (kh, kw) if stride is None else pooling.pair("stride", stride, 1)
    rows, columns = (9 + 2 * ph - kh) // sh + 1, (8 + 2 * pw - kw) // sw + 1
    assert found.shape == (2, 3, rows, columns, kh, kw)
    for i, j in ((0, 0), (rows - 1, columns - 1), (rows // 2, 1)):
        for a in range(kh):
            for b in range(kw):
                r, c = sh * i - ph + a, sw * j - pw + b
                inside = 0 <= r < 9 and 0 <= c < 8
                expected = x[:, :, r, c] if inside else torch.full_like(x[:, :, 0, 0], -7)
                assert torch.equal(found[:, :, i, j, a, b], expected)


def test_windows_copy_nothing(x):
    assert pooling.windows(x, 3, 1).data_ptr() == x.data_ptr()


@settings
def test_max_is_pytorchs_with_its_gradient(x, kernel, stride, padding):
    x.requires_grad_()
    ours, peer = (f(x, kernel, stride, padding) for f in (pooling.max_pool2d, functional.max_pool2d))
    torch.testing.assert_close(ours, peer, rtol=0, atol=0)
    weights = torch.rand_like(ours)
    gradients = [torch.autograd.grad((weights * y).sum(), x)[0] for y in (ours, peer)]
    torch.testing.assert_close(*gradients)


@settings
def test_average_is_pytorchs(x, kernel, stride, padding):
    peer = functional.avg_pool2d(x, kernel, stride, padding)
    torch.testing.assert_close(pooling.avg_pool2d(x, kernel, stride, padding), peer)


@settings
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_lp_is_the_norm_and_pytorchs_where_that_has_one(x, p, kernel, stride, padding):
    ours = pooling.lp_pool2d(x, p, kernel, stride, padding)
    windows = pooling.windows(x, kernel, stride, padding).flatten(-2)
    torch.testing.assert_close(ours, torch.linalg.vector_norm(windows, p, dim=-1))
    if padding == 0:
        peer = functional.lp_pool2d(x.abs(), p, kernel, stride)
        torch.testing.assert_close(ours, peer)


def test_lp_goes_from_sum_to_maximum_and_survives_extremes():
    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pooling.lp_pool2d(x, 1.0, 2), 4 * pooling.avg_pool2d(x, 2))
    torch.testing.assert_close(pooling.lp_pool2d(x, 500.0, 2), pooling.max_pool2d(x, 2), rtol=4e-3, atol=0)
    torch.testing.assert_close(pooling.lp_pool2d(1e30 * x, 8.0, 2), 1e30 * pooling.lp_pool2d(x, 8.0, 2))
    zeros = torch.zeros(1, 1, 2, 2, requires_grad=True)
    pooling.lp_pool2d(zeros, 2.0, 2).sum().backward()
    assert zeros.grad.eq(0).all()


def test_lp_gradient_is_the_numerical_one(generator):
    x = torch.randn(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pooling.lp_pool2d(x, 3.0, 2, 1), x)


def test_stochastic_draws_with_the_stated_probabilities(device):
    window = torch.tensor([[0.0, 1.0], [3.0, 4.0]], device=device)
    x = window.repeat(100, 100)[None, None]  # 10,000 equal windows
    generator = torch.Generator(device).manual_seed(0)
    drawn = pooling.stochastic_pool2d(x, 2, training=True, generator=generator)
    assert drawn.shape == (1, 1, 100, 100)
    for value, probability in ((0, 0), (1, 1 / 8), (3, 3 / 8), (4, 4 / 8)):
        error = 4 * (probability * (1 - probability) / 10_000) ** 0.5
        assert abs((drawn == value).double().mean().item() - probability) <= error
    expected = (1 + 9 + 16) / 8
    torch.testing.assert_close(pooling.stochastic_pool2d(x, 2), torch.full_like(drawn, expected))
    assert abs(drawn.mean().item() - expected) < 4 * drawn.std().item() / 100


def test_stochastic_repeats_with_its_generator_and_sends_gradients_to_what_was_drawn():
    x = torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    first, second = (
        pooling.stochastic_pool2d(x, 3, training=True, generator=torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert gradient.sum() == first.numel()
    assert torch.equal(x[gradient == 1].sort().values, first.flatten().sort().values)


def test_stochastic_never_draws_what_is_not_positive():
    x = -torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for training in (False, True):
        assert pooling.stochastic_pool2d(x, 2, training=training).eq(0).all()
    x[0, 0, 1, 1] = 2.0
    assert pooling.stochastic_pool2d(x, 4, training=True).item() == 2.0
    assert pooling.stochastic_pool2d(x, 4).item() == 2.0


def test_global_average_is_the_largest_window(x):
    expected = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    torch.testing.assert_close(pooling.global_avg_pool2d(x), expected)


def test_the_lectures_example():
    assert pooling.max_pool2d(SLIDE, 3, 1)[0, 0].tolist() == [[3, 3, 3], [3, 3, 3], [3, 2, 3]]
    assert pooling.avg_pool2d(SLIDE, 3, 1)[0, 0, 0, 0].item() == pytest.approx(15 / 9)


EVERY = {
    "max": pooling.max_pool2d,
    "average": pooling.avg_pool2d,
    "lp": lambda x, *size: pooling.lp_pool2d(x, 2.0, *size),
    "stochastic": pooling.stochastic_pool2d,
    "draws": lambda x, *size: pooling.stochastic_pool2d(x, *size, training=True),
}
every = pytest.mark.parametrize("pool", EVERY.values(), ids=list(EVERY))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_keeps_dtype_and_device_and_has_finite_gradients(pool, dtype, device):
    x = torch.rand(2, 3, 6, 6).to(device, dtype).requires_grad_()
    y = pool(x, 3, 2, 1)
    y.sum().backward()
    assert (y.dtype, y.device.type, y.shape) == (dtype, device.type, (2, 3, 3, 3))
    assert x.grad.isfinite().all()


@pytest.mark.slow
@every
def test_each_compiles_in_one_graph(pool, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.compiler.reset()
    x = torch.rand(1, 2, 6, 6)
    compiled = torch.compile(lambda x: pool(x, 2), backend="eager", fullgraph=True)
    torch.manual_seed(0)
    expected = pool(x, 2)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(x), expected)


@every
def test_each_refuses_what_it_cannot_take(pool):
    x = torch.rand(1, 1, 4, 4)
    with refuses(ValueError, r"x must be at least 5 x 5 pixels.* got 4 x 4"):
        pool(x, 5)
    with refuses(ValueError, r"x must be at least 1 x 5 pixels.* got 4 x 4"):
        pool(x, (3, 5), 1, (1, 0))
    with refuses(ValueError, r"x must have shape \(batch, channels, height, width\), got \(4, 4\)"):
        pool(x[0, 0], 2)
    with refuses(ValueError, "padding must be smaller than the kernel 2, got 2"):
        pool(x, 2, 1, 2)
    with refuses(ValueError, "stride must be at least 1, got 0"):
        pool(x, 2, 0)
    with refuses(TypeError, r"kernel_size must be an integer or a pair of integers, got 2\.0"):
        pool(x, 2.0)
    with refuses(TypeError, "kernel_size must be an integer or a pair of integers, got True"):
        pool(x, True)


def test_other_refusals():
    x = torch.rand(1, 1, 4, 4)
    for p in (0.5, float("inf"), float("nan")):
        with refuses(ValueError, f"p must be at least 1 and finite, got {p}"):
            pooling.lp_pool2d(x, p, 2)
    with refuses(ValueError, "padding must be at least 0, got -1"):
        pooling.windows(x, 2, 1, -1)
    with refuses(ValueError, r"x must have shape .*, got \(4, 4\)"):
        pooling.global_avg_pool2d(x[0, 0])
