import copy

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional

from deepstat.foundations.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm, local_response_norm
from helpers import refuses

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def randomize(*layers, seed=0):
    """The same random scale and shift for layers that have them."""
    for layer in layers:
        generator = torch.Generator().manual_seed(seed)
        for parameter in layer.parameters():
            with torch.no_grad():
                parameter.normal_(1, 0.5, generator=generator)


def compare(ours, theirs, x):
    """Outputs and all gradients, of a random linear functional."""
    mine, other = (x.clone().requires_grad_() for _ in range(2))
    y, expected = ours(mine), theirs(other)
    torch.testing.assert_close(y, expected, **EXACT)
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(5)).to(y.device)
    got = torch.autograd.grad((y * weights).sum(), [mine, *ours.parameters()])
    want = torch.autograd.grad((expected * weights).sum(), [other, *theirs.parameters()])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


BATCHES = {
    "1d": ((8, 5), nn.BatchNorm1d),
    "1d with positions": ((4, 5, 7), nn.BatchNorm1d),
    "2d": ((4, 5, 3, 6), nn.BatchNorm2d),
    "3d": ((2, 5, 3, 2, 4), nn.BatchNorm3d),
    "one image": ((1, 5, 3, 2), nn.BatchNorm2d),
    "two rows": ((2, 5), nn.BatchNorm1d),
}


@pytest.mark.parametrize(("shape", "library"), BATCHES.values(), ids=list(BATCHES))
@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.25}])
def test_batch_norm_is_pytorchs_in_training_and_evaluation(shape, library, options, device):
    ours, theirs = (kind(5, **options).double().to(device) for kind in (BatchNorm, library))
    randomize(ours, theirs) if device.type == "cpu" else None
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        x = (2 + 3 * torch.randn(shape, dtype=torch.float64, generator=generator)).to(device)
        compare(ours, theirs, x)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, **EXACT)
        torch.testing.assert_close(ours.running_var, theirs.running_var, **EXACT)
    before = ours.running_mean.clone(), ours.running_var.clone()
    compare(ours.eval(), theirs.eval(), x)
    assert torch.equal(before[0], ours.running_mean)
    assert torch.equal(before[1], ours.running_var)
    ours(x[:1])  # a batch of one is no problem in evaluation


def test_the_running_averages_of_two_known_batches():
    """By hand: the variance that is used has divisor 2, the one that is kept has divisor 1."""
    layer = BatchNorm(1, eps=0.0, momentum=0.5).double()
    y = layer(torch.tensor([[1.0], [3.0]], dtype=torch.float64))
    assert y.flatten().tolist() == [-1.0, 1.0]
    assert layer.running_mean.item() == 1.0  # (0 + 2) / 2
    assert layer.running_var.item() == 1.5  # (1 + 2) / 2
    layer(torch.tensor([[0.0], [4.0]], dtype=torch.float64))
    assert layer.running_mean.item() == 1.5
    assert layer.running_var.item() == 4.75  # (1.5 + 8) / 2


def test_batch_norm_refuses_what_pytorch_refuses():
    x = torch.ones(1, 3)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm1d(3)(x)
    with refuses(ValueError, r"more than one value a feature in training, got shape \(1, 3\)"):
        BatchNorm(3)(x)
    BatchNorm(3).eval()(x)


def test_the_gradient_formula():
    """The chapter's formula: residuals of a regression on 1 and the normalized values."""
    x = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    g = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer = BatchNorm(1, eps=0.3).double()
    (grad,) = torch.autograd.grad((layer(x[:, None])[:, 0] * g).sum(), x)
    spread = (x.var(correction=0) + 0.3).sqrt()
    hat = (x - x.mean()) / spread
    torch.testing.assert_close(grad, ((g - g.mean() - hat * (g * hat).mean()) / spread).detach(), **EXACT)
    assert torch.autograd.gradcheck(lambda z: copy.deepcopy(layer)(z[:, None]), x)


@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("shape", [(4, 6), (6,), (2, 3, 6)])
def test_layer_and_rms_norm_are_pytorchs(shape, eps):
    x = 2 + torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ours, theirs in ((LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)):
        a, b = ours(6, eps=eps).double(), theirs(6, eps=eps).double()
        randomize(a, b)
        compare(a, b, x)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(4, 6, 3, 5), (2, 6, 7), (3, 6)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_group_norm_is_pytorchs(groups, shape, eps):
    x = 2 + torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = GroupNorm(groups, 6, eps=eps).double(), nn.GroupNorm(groups, 6, eps=eps).double()
    randomize(a, b)
    compare(a, b, x)


def test_special_cases_of_group_norm():
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    instance = GroupNorm(6, 6).double()(x)
    torch.testing.assert_close(instance, functional.instance_norm(x), **EXACT)
    flat = LayerNorm(96).double()(x.flatten(1)).view_as(x)
    torch.testing.assert_close(GroupNorm(1, 6).double()(x), flat, **EXACT)


@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 6, 5), (2, 3, 4)])
def test_local_response_norm_is_pytorchs_with_alpha_times_size(size, shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours = local_response_norm(x, size, alpha=0.02, beta=0.6, k=1.5)
    theirs = functional.local_response_norm(x, size, alpha=0.02 * size, beta=0.6, k=1.5)
    torch.testing.assert_close(ours, theirs, **EXACT)
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), x) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_local_response_norm_by_hand_with_the_papers_constants():
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    sums = torch.tensor([14.0, 30.0, 30.0, 29.0], dtype=torch.float64)  # of squares, two neighbours on either side
    torch.testing.assert_close(local_response_norm(x), x / (2 + 1e-4 * sums) ** 0.75, **EXACT)


LAYERS = {
    "batch": lambda: BatchNorm(8),
    "layer": lambda: LayerNorm(8),
    "rms": lambda: RMSNorm(8),
    "group": lambda: GroupNorm(2, 8),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=list(LAYERS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_statistics_are_single_precision(make, dtype, device):
    """A column of large mean: in half precision the mean of squares would overflow or lose all digits."""
    layer = make().to(device)
    x = (300 + torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) * 20).to(device, dtype)
    y = layer(x)
    assert y.dtype == dtype
    expected = make().to(device)(x.float())
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("make", LAYERS.values(), ids=list(LAYERS))
def test_autocast(make, device):
    model = nn.Sequential(nn.Linear(4, 8), make()).to(device)
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        y = model(x)
    torch.testing.assert_close(y.float(), model(x), rtol=0.05, atol=0.05)
    y.float().sum().backward()


@pytest.mark.parametrize("make", LAYERS.values(), ids=list(LAYERS))
def test_one_graph_under_torch_compile_that_keeps_the_averages(make, monkeypatch):
    """The eager backend traces and needs no C++ compiler; the run-time checks of shapes cannot be traced."""
    torch.compiler.reset()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    layer = make()
    twin = copy.deepcopy(layer)
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.compile(twin, backend="eager", fullgraph=True)(x), layer(x))
    for ours, theirs in zip(twin.buffers(), layer.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_buffers_move_and_are_saved():
    layer = BatchNorm(3)
    layer(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))
    other = BatchNorm(3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.running_mean, layer.running_mean)
    assert layer.double().running_var.dtype == torch.float64
    official = nn.BatchNorm1d(3)
    official.load_state_dict(layer.state_dict(), strict=False)  # theirs also counts batches
    assert torch.equal(official.running_mean, layer.running_mean.float())


@pytest.mark.parametrize(("call", "match"), [
    (lambda: BatchNorm(0), "features must be an integer of at least 1, got 0"),
    (lambda: BatchNorm(2.0), "features must be an integer .*2.0"),
    (lambda: BatchNorm(3, eps=-1.0), "eps must be at least 0, got -1"),
    (lambda: BatchNorm(3, eps=float("nan")), "eps .*nan"),
    (lambda: BatchNorm(3, momentum=1.5), r"momentum must be in \[0, 1\], got 1.5"),
    (lambda: BatchNorm(3)(torch.ones(4, 2)), r"x must have shape \(B, 3, ...\), got \(4, 2\)"),
    (lambda: BatchNorm(3)(torch.ones(3)), r"got \(3,\)"),
    (lambda: LayerNorm(0), "features"),
    (lambda: LayerNorm(3, eps=-1.0), "eps"),
    (lambda: LayerNorm(3)(torch.ones(4, 2)), r"x must have shape \(..., 3\), got \(4, 2\)"),
    (lambda: RMSNorm(3)(torch.ones(2)), r"got \(2,\)"),
    (lambda: RMSNorm(-1), "features"),
    (lambda: GroupNorm(2, 3), "groups must divide channels, got 2 and 3"),
    (lambda: GroupNorm(0, 3), "groups must be an integer"),
    (lambda: GroupNorm(1, 3)(torch.ones(4, 2)), r"got \(4, 2\)"),
    (lambda: local_response_norm(torch.ones(2, 3), size=4), "size must be odd, got 4"),
    (lambda: local_response_norm(torch.ones(2, 3), size=0), "size must be an integer"),
    (lambda: local_response_norm(torch.ones(2, 3), alpha=-1.0), "alpha must be at least 0"),
    (lambda: local_response_norm(torch.ones(2, 3), k=0.0), "k positive"),
    (lambda: local_response_norm(torch.ones(3)), "x must have shape"),
])  # fmt: skip
def test_bad_input_is_refused(call, match):
    with refuses(ValueError, match):
        call()
