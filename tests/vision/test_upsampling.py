import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.vision import upsampling
from helpers import refuses

SIZES = [(1, 1, 2, 2, 2), (2, 3, 6, 9, 3), (1, 2, 8, 4, 1), (2, 1, 5, 10, 5)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
every_size = pytest.mark.parametrize(("batch", "channels", "height", "width", "factor"), SIZES)


@every_size
def test_pooling_with_indices_is_pytorchs(batch, channels, height, width, factor, device):
    torch.manual_seed(0)
    x = torch.randint(5, (batch, channels, height, width), device=device).double()  # with ties
    values, indices = upsampling.max_pool_with_indices(x, factor)
    theirs, places = functional.max_pool2d(x, factor, return_indices=True)
    assert torch.equal(values, theirs)
    assert torch.equal(indices, places)


@every_size
def test_max_unpooling_is_pytorchs(batch, channels, height, width, factor, device):
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width, device=device)
    values, indices = upsampling.max_pool_with_indices(x, factor)
    y = torch.randn_like(values)
    assert torch.equal(upsampling.max_unpool(y, indices, factor), functional.max_unpool2d(y, indices, factor))


@every_size
def test_nearest_and_bilinear_are_pytorchs(batch, channels, height, width, factor, device):
    x = torch.randn(batch, channels, height, width, dtype=torch.float64, device=device)
    assert torch.equal(upsampling.nearest(x, factor), functional.interpolate(x, scale_factor=factor))
    expected = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsampling.bilinear(x, factor), expected, rtol=0, atol=1e-12)


def test_fixed_unpooling_puts_values_in_top_left_corners():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, ::2, ::2] = x[0, 0]
    assert torch.equal(upsampling.fixed_unpool(x), expected)
    one = torch.zeros(1, 1, 2, 2)
    one[0, 0, 0, 0] = 1  # the same by PyTorch's transposed convolution
    assert torch.equal(upsampling.fixed_unpool(x), functional.conv_transpose2d(x, one, stride=2))


@pytest.mark.parametrize(("k", "m", "stride", "padding"), [(3, 3, 2, 1), (2, 2, 2, 0), (4, 4, 2, 1), (1, 3, 3, 0), (5, 4, 1, 2)])
def test_the_transposed_convolution_is_pytorchs(k, m, stride, padding, device):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, device=device, requires_grad=True)
    weight = torch.randn(3, 2, k, m, dtype=torch.float64, device=device, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, device=device)
    if 2 * padding >= stride * 3 + k:
        pytest.skip("nothing is left")
    ours = upsampling.conv_transpose2d(x, weight, bias, stride, padding)
    theirs = functional.conv_transpose2d(x, weight, bias, stride, padding)
    torch.testing.assert_close(ours, theirs)
    mine = torch.autograd.grad(ours.square().sum(), (x, weight))
    yours = torch.autograd.grad(theirs.square().sum(), (x, weight))
    torch.testing.assert_close(mine, yours)


def test_upsamplings_are_transposes_of_downsamplings():
    """<down(x), y> = <x, up(y)>."""
    torch.manual_seed(0)
    x, y = torch.randn(1, 2, 6, 8, dtype=torch.float64), torch.randn(1, 2, 3, 4, dtype=torch.float64)
    weight = torch.randn(2, 2, 2, 2, dtype=torch.float64)
    values, indices = upsampling.max_pool_with_indices(x)
    pairs = [
        (x[:, :, ::2, ::2], upsampling.fixed_unpool(y)),
        (4 * functional.avg_pool2d(x, 2), upsampling.nearest(y)),
        (values, upsampling.max_unpool(y, indices)),
        (functional.conv2d(x, weight, stride=2), upsampling.conv_transpose2d(y, weight, stride=2)),
    ]
    for down, up in pairs:
        torch.testing.assert_close((down * y).sum(), (x * up).sum())


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_the_bilinear_kernel_interpolates_away_from_the_border(factor):
    x = torch.randn(1, 1, 7, 6, dtype=torch.float64)
    kernel = upsampling.bilinear_kernel(factor)
    ours = upsampling.conv_transpose2d(x, kernel[None, None], stride=factor, padding=(len(kernel) - factor) // 2)
    expected = upsampling.bilinear(x, factor)
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours[inner], expected[inner])
    torch.testing.assert_close(upsampling.interpolation_matrix(5, factor).sum(1), torch.ones(5 * factor).double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_kept_and_gradients_flow(dtype, device):
    x = torch.randn(1, 2, 4, 4, dtype=dtype, device=device, requires_grad=True)
    weight = torch.randn(2, 1, 2, 2, dtype=dtype, device=device)
    values, indices = upsampling.max_pool_with_indices(x)
    results = [upsampling.max_unpool(values, indices), upsampling.fixed_unpool(x), upsampling.nearest(x),
               upsampling.bilinear(x), upsampling.conv_transpose2d(x, weight, stride=2)]  # fmt: skip
    for result in results:
        assert result.dtype == dtype
        assert result.device == x.device
        (grad,) = torch.autograd.grad(result.float().sum(), x, retain_graph=True)
        assert grad.abs().sum() > 0


@pytest.mark.slow
def test_they_compile(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced

    def all_of_them(x, weight):
        values, indices = upsampling.max_pool_with_indices(x)
        return (
            upsampling.max_unpool(values, indices), upsampling.fixed_unpool(x), upsampling.nearest(x),
            upsampling.bilinear(x), upsampling.conv_transpose2d(x, weight, stride=2),
        )  # fmt: skip

    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 1, 3, 3)
    compiled = torch.compile(all_of_them, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight), all_of_them(x, weight))


def test_bad_input_is_refused():
    x = torch.zeros(1, 1, 5, 4)
    with refuses(ValueError, r"divisible by 2, such as 4 x 4, got 5 x 4"):
        upsampling.max_pool_with_indices(x)
    with refuses(ValueError, r"x must have shape \(batch, channels, height, width\)"):
        upsampling.nearest(x[0])
    with refuses(ValueError, "factor must be at least 1, got 0"):
        upsampling.fixed_unpool(x, 0)
    with refuses(ValueError, r"indices must have x's shape \(1, 1, 5, 4\), got \(1, 1, 2, 2\)"):
        upsampling.max_unpool(x, torch.zeros(1, 1, 2, 2, dtype=torch.long))
    with refuses(ValueError, r"weight must have shape \(1, out, k, m\)"):
        upsampling.conv_transpose2d(x, torch.zeros(2, 1, 2, 2))
    with refuses(ValueError, "padding must be from 0 to 2, got 3"):
        upsampling.conv_transpose2d(x, torch.zeros(1, 1, 2, 2), padding=3)
    with refuses(ValueError, "stride must be at least 1"):
        upsampling.conv_transpose2d(x, torch.zeros(1, 1, 2, 2), stride=0)
    with refuses(ValueError, "size must be at least 1"):
        upsampling.interpolation_matrix(0, 2)
    with refuses(ValueError, "factor must be at least 1"):
        upsampling.bilinear_kernel(0)
