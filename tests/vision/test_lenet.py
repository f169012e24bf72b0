import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deepstat.seeding import seed_everything
from deepstat.vision import lenet, pooling
from deepstat.vision.convolution import conv2d
from deepstat.vision.lenet import LeNet5, on_canvas
from helpers import refuses


def batch(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 32, 32, generator=generator), torch.arange(n) % 10


def test_it_has_61706_parameters_as_the_paper_lays_them_out():
    with torch.device("meta"):
        model = LeNet5()
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()}
    assert counts == {"c1": 156, "c3": 2416, "c5": 48_120, "f6": 10_164, "output": 850}
    assert sum(counts.values()) == 61_706


def test_the_original_has_60000_parameters_and_340908_connections():
    counts = lenet.original_counts()
    assert counts == {
        "C1": (156, 122_304), "S2": (12, 5_880), "C3": (1_516, 151_600), "S4": (32, 2_000),
        "C5": (48_120, 48_120), "F6": (10_164, 10_164), "output": (0, 840),
    }  # fmt: skip
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [60_000, 340_908]


def test_c3s_table_is_the_papers():
    assert [len(set(inputs)) for inputs in lenet.C3_INPUTS] == 6 * [3] + 9 * [4] + [6]
    assert len(set(map(frozenset, lenet.C3_INPUTS))) == 16
    feeds = [sum(s2 in inputs for inputs in lenet.C3_INPUTS) for s2 in range(6)]
    assert feeds == 6 * [10]  # each map of S2 feeds ten of C3
    assert set(lenet.C3_INPUTS[4]) == {0, 4, 5}
    assert set(lenet.C3_INPUTS[13]) == {1, 2, 4, 5}


@pytest.mark.parametrize("pool", ["max", "average"])
def test_it_is_our_layers_one_after_another(pool):
    model = LeNet5(pool=pool).double()
    x = batch()[0].double()
    ours = {"max": pooling.max_pool2d, "average": pooling.avg_pool2d}[pool]
    c1 = conv2d(x, model.c1.weight, model.c1.bias).clamp(min=0)
    c3 = conv2d(ours(c1, 2), model.c3.weight, model.c3.bias).clamp(min=0)
    maps = model.maps(x)
    assert list(maps) == ["C1", "S2", "C3", "S4"]
    for name, expected in (("C1", c1), ("S2", ours(c1, 2)), ("C3", c3), ("S4", ours(c3, 2))):
        torch.testing.assert_close(maps[name], expected, rtol=1e-12, atol=1e-12)
    h = ours(c3, 2).flatten(1)
    for layer in (model.c5, model.f6):
        h = (h @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model(x), h @ model.output.weight.T + model.output.bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_reach_every_parameter(pool, dtype, device):
    seed_everything(0)
    model = LeNet5(3, torch.tanh, pool).to(device, dtype)
    x = batch()[0].to(device, dtype)
    y = model(x)
    assert (y.shape, y.dtype) == ((8, 3), dtype)
    y.float().square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_autocast_and_compile(device, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.compiler.reset()
    model, x = LeNet5().to(device), batch()[0].to(device)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))
    with torch.autocast(device.type, torch.bfloat16):
        assert model(x).dtype == torch.bfloat16


@pytest.mark.parametrize("pool", ["max", "average"])
def test_it_overfits_one_batch(pool, device):
    seed_everything(0)
    model, (x, y) = LeNet5(pool=pool).to(device), batch()
    x, y = x.to(device), y.to(device)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss < 0.01


def test_the_canvas_is_centred_and_on_lenets_scale():
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    canvas = on_canvas(x)
    assert canvas.shape == (2, 1, 32, 32)
    margin = canvas.clone()
    margin[:, :, 4:28, 4:28] = -0.1
    assert torch.equal(margin, torch.full_like(margin, -0.1))
    # the middle pixel of each block of 3 x 3 is the pixel itself
    torch.testing.assert_close(canvas[:, :, 5:28:3, 5:28:3], 1.275 * x - 0.1)
    torch.testing.assert_close(on_canvas(torch.ones(1, 1, 8, 8))[0, 0, 4:28, 4:28], torch.full((24, 24), 1.175))


def test_refusals():
    with refuses(ValueError, r"x must have shape \(batch, 1, 32, 32\), got \(2, 1, 28, 28\)"):
        LeNet5()(torch.zeros(2, 1, 28, 28))
    with refuses(ValueError, r"x must have shape \(batch, 1, 32, 32\), got \(2, 3, 32, 32\)"):
        LeNet5()(torch.zeros(2, 3, 32, 32))
    with refuses(ValueError, "pool must be one of max, average, got 'median'"):
        LeNet5(pool="median")
    with refuses(ValueError, "classes must be at least 1, got 0"):
        LeNet5(0)
    with refuses(TypeError, "classes must be an integer, got float"):
        LeNet5(10.0)
    with refuses(TypeError, "activation must be a function, got str"):
        LeNet5(activation="relu")
    with refuses(ValueError, r"x must have shape \(batch, 1, height, width\), got \(2, 8, 8\)"):
        on_canvas(torch.zeros(2, 8, 8))


def test_any_activation_goes():
    x = batch()[0]
    assert LeNet5(activation=nn.Tanh())(x).shape == (8, 10)
