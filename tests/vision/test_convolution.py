import jaxtyping
import numpy as np
import pytest
import torch
from scipy import signal
from torch.nn import functional

from deepstat.vision import convolution
from helpers import refuses

SETTINGS = [  # kernel, stride, padding
    (1, 1, 0),
    (3, 1, 0),
    (3, 1, 1),
    (3, 2, 1),
    (5, 3, 2),
    ((2, 4), (2, 1), (0, 3)),
]
settings = pytest.mark.parametrize(("kernel", "stride", "padding"), SETTINGS)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def double(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernels(maps, channels, kernel, seed=1):
    return double(maps, channels, *((kernel, kernel) if isinstance(kernel, int) else kernel), seed=seed)


@settings
def test_conv2d_is_pytorchs_with_all_gradients(kernel, stride, padding, device):
    tensors = [t.to(device).requires_grad_() for t in (double(2, 3, 9, 8), kernels(4, 3, kernel), double(4, seed=2))]
    ours, peer = (f(*tensors, stride, padding) for f in (convolution.conv2d, functional.conv2d))
    torch.testing.assert_close(ours, peer, **CLOSE)
    weights = double(*ours.shape, seed=3).to(device)
    for pair in zip(*(torch.autograd.grad((weights * y).sum(), tensors) for y in (ours, peer)), strict=True):
        torch.testing.assert_close(*pair, **CLOSE)


def test_conv2d_is_scipys_cross_correlation_and_with_a_mirrored_kernel_its_convolution():
    x, w = double(7, 6), double(3, 2, seed=1)
    ours = convolution.conv2d(x[None, None], w[None, None])[0, 0]
    np.testing.assert_allclose(ours, signal.correlate2d(x, w, mode="valid"), rtol=0, atol=1e-12)
    mirrored = convolution.conv2d(x[None, None], w.flip(0, 1)[None, None])[0, 0]
    np.testing.assert_allclose(mirrored, signal.convolve2d(x, w, mode="valid"), rtol=0, atol=1e-12)


def test_conv1d_is_pytorchs_and_an_mlp_layer_where_the_kernel_is_the_sequence():
    x, w, b = double(2, 3, 10), double(4, 3, 3, seed=1), double(4, seed=2)
    for stride, padding in ((1, 0), (2, 1), (3, 2)):
        peer = functional.conv1d(x, w, b, stride, padding)
        torch.testing.assert_close(convolution.conv1d(x, w, b, stride, padding), peer, **CLOSE)
    whole = double(5, 3, 10, seed=3)
    dense = x.flatten(1) @ whole.flatten(1).T
    torch.testing.assert_close(convolution.conv1d(x, whole)[:, :, 0], dense, **CLOSE)


def test_convolve_is_numpys_and_commutes():
    f, g = double(7), double(4, seed=1)
    torch.testing.assert_close(convolution.convolve(f, g), torch.tensor(np.convolve(f, g)), **CLOSE)
    torch.testing.assert_close(convolution.convolve(f, g), convolution.convolve(g, f), **CLOSE)
    three = convolution.convolve(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0, 100.0]))
    assert three.tolist() == [1, 12, 120, 200]


@pytest.mark.parametrize("kernel", [1, 2, 3, (4, 3), (8, 7)])
def test_the_fourier_route_leads_to_the_same_place(kernel, device):
    x, w = double(2, 3, 8, 7).to(device), kernels(4, 3, kernel).to(device)
    torch.testing.assert_close(convolution.fourier_conv2d(x, w), convolution.conv2d(x, w), rtol=1e-10, atol=1e-10)


def test_local_connections_are_a_convolution_where_kernels_agree():
    x, w = double(2, 3, 8, 7), kernels(4, 3, 3)
    peer = functional.conv2d(x, w, stride=2, padding=1)
    shared = w.expand(*peer.shape[2:], *w.shape)
    torch.testing.assert_close(convolution.locally_connected2d(x, shared, 2, 1), peer, **CLOSE)


def test_local_connections_use_each_positions_own_kernel():
    x, w = double(2, 3, 5, 5), double(3, 2, 4, 3, 3, 3, seed=1)
    y = convolution.locally_connected2d(x, w, (1, 2))
    for i in range(3):
        for j in range(2):
            expected = functional.conv2d(x[:, :, i : i + 3, 2 * j : 2 * j + 3], w[i, j])[:, :, 0, 0]
            torch.testing.assert_close(y[:, :, i, j], expected, **CLOSE)


@settings
@pytest.mark.parametrize("size", [5, 8, 11])
def test_output_size_is_that_of_the_output(size, kernel, stride, padding):
    kernel, stride, padding = (v if isinstance(v, int) else v[0] for v in (kernel, stride, padding))
    shape = functional.conv2d(torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel, kernel), None, stride, padding)
    assert convolution.output_size(size, kernel, stride, padding) == shape.shape[2]


def test_utilization_of_the_lectures_tables():
    assert convolution.utilization(5, 5, 1).eq(1).all()
    assert convolution.utilization(3, 3, 2).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    one = torch.tensor([1.0, 2, 3, 2, 1])
    assert torch.equal(convolution.utilization(5, 5, 3), one[:, None] * one)


@settings
def test_utilization_counts_windows_one_by_one(kernel, stride, padding):
    (kh, kw), (sh, sw), (ph, pw) = (v if isinstance(v, tuple) else (v, v) for v in (kernel, stride, padding))
    count = torch.zeros(9, 8)
    for top in range(-ph, 9 + ph - kh + 1, sh):
        for left in range(-pw, 8 + pw - kw + 1, sw):
            count[max(top, 0) : top + kh, max(left, 0) : left + kw] += 1
    with torch.no_grad():
        assert torch.equal(convolution.utilization(9, 8, kernel, stride, padding), count)


LAYERS = {
    "conv2d": (lambda x, w: convolution.conv2d(x, w, None, 2, 1), functional.conv2d, (2, 1)),
    "fourier": (convolution.fourier_conv2d, functional.conv2d, (1, 0)),
    "local": (
        lambda x, w: convolution.locally_connected2d(x, w.expand(4, 4, *w.shape)),
        functional.conv2d,
        (1, 0),
    ),
}
layers = pytest.mark.parametrize(("layer", "peer", "size"), LAYERS.values(), ids=list(LAYERS))


@layers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_keeps_dtype_and_device_and_has_gradients(layer, peer, size, dtype, device):
    x, w = (t.to(device, dtype).requires_grad_() for t in (double(2, 3, 6, 6), kernels(4, 3, 3)))
    y = layer(x, w)
    assert (y.dtype, y.device.type) == (dtype, device.type)
    expected = peer(x.double(), w.double(), None, *size)
    unit = torch.finfo(dtype).eps  # a sum of 27 products of a few units at most
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=60 * unit)
    y.sum().backward()
    assert all(t.grad.isfinite().all() and t.grad.abs().max() > 0 for t in (x, w))


@layers
def test_each_compiles_in_one_graph(layer, peer, size, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.compiler.reset()
    x, w = double(2, 3, 6, 6), kernels(4, 3, 3)
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x, w), layer(x, w))


def test_refusals():
    x, w = double(1, 3, 4, 5), kernels(2, 3, 3)
    with refuses(ValueError, r"weight must have shape \(maps, 3, k, k\) for these images, got \(2, 4, 3, 3\)"):
        convolution.conv2d(x, kernels(2, 4, 3))
    with refuses(ValueError, r"bias must have shape \(2,\), one for each kernel, got \(3,\)"):
        convolution.conv2d(x, w, double(3))
    with refuses(ValueError, r"x must have shape \(batch, channels, height, width\), got \(3, 4, 5\)"):
        convolution.conv2d(x[0], w)
    with refuses(ValueError, r"x must be at least 5 x 5 pixels .* got 4 x 5"):
        convolution.conv2d(x, kernels(2, 3, 5))
    with refuses(ValueError, "x must be at least 5 x 5 pixels, got 4 x 5"):
        convolution.fourier_conv2d(x, kernels(2, 3, 5))
    with refuses(ValueError, r"weight must have one kernel for each of \(2, 3\) positions, got \(2, 2\)"):
        convolution.locally_connected2d(x, double(2, 2, 2, 3, 3, 3))
    with refuses(ValueError, r"weight must have shape \(height', width', maps, channels, k, k\), got \(2, 3, 3, 3\)"):
        convolution.locally_connected2d(x, w)
    with refuses(ValueError, r"x and weight must have three axes, got \(1, 3, 4, 5\) and \(2, 3, 3\)"):
        convolution.conv1d(x, w[..., 0])
    with refuses(ValueError, r"g must have shape \(n,\) with n of at least 1, got \(0,\)"):
        convolution.convolve(double(3), double(0))
    with refuses(ValueError, "size must be at least 3, got 2"):
        convolution.output_size(2, 5, 1, 1)
    with refuses(ValueError, "kernel must be at least 1, got 0"):
        convolution.output_size(2, 0)
    with refuses(TypeError, r"stride must be an integer, got 1\.5"):
        convolution.output_size(5, 2, 1.5)
    with refuses(TypeError, r"size must be an integer, got \(5, 5\)"):
        convolution.output_size((5, 5), 2)
