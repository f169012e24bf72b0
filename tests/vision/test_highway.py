import pytest
import torch
from torch.nn.functional import cross_entropy

from deepstat.vision.cost import parameters
from deepstat.vision.highway import Highway, HighwayNetwork
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter, overfits, runs_in


def batch(rows=16):
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(0)), torch.arange(rows) % 4


def test_the_equation():
    torch.manual_seed(0)
    layer, h = Highway(5), torch.randn(3, 5)
    t = 1 / (1 + torch.exp(-(h @ layer.gate.weight.T + layer.gate.bias)))
    z = h @ layer.transform.weight.T + layer.transform.bias
    torch.testing.assert_close(layer(h), t * z.clamp(min=0) + h - t * h)


def test_closed_and_open_gates():
    torch.manual_seed(0)
    h = torch.randn(3, 5)
    closed, opened = Highway(5, bias=-200.0), Highway(5, bias=200.0)
    torch.testing.assert_close(closed(h), h)
    torch.testing.assert_close(opened(h), torch.relu(opened.transform(h)))


def test_start():
    torch.manual_seed(0)
    layer = Highway(400)
    assert (layer.gate.bias == -2).all()
    assert (layer.transform.bias == 0).all()
    assert abs(layer.transform.weight.std() / (2 / 400) ** 0.5 - 1) < 0.02


def test_parameters():
    assert parameters(HighwayNetwork(64, 50, 10, 10)) == 64 * 50 + 50 + 10 * 2 * (50 * 50 + 50) + 50 * 10 + 10


def test_every_device_and_dtype(device):
    torch.manual_seed(0)
    runs_in(HighwayNetwork(6, 8, 5, 4), batch()[0], 4, device)


@pytest.mark.slow
def test_gradients_and_one_batch():
    torch.manual_seed(0)
    model, (x, y) = HighwayNetwork(6, 16, 10, 4), batch()
    gradients_reach_every_parameter(model, cross_entropy(model(x), y))
    overfits(model, x, y, rate=1e-2, steps=100)


def test_compiles(monkeypatch):
    torch.manual_seed(0)
    compiles(HighwayNetwork(6, 8, 5, 4), batch()[0], monkeypatch)


def test_refusals():
    with refuses(ValueError, "depth must be an integer of at least 1, got 0"):
        HighwayNetwork(6, 8, 0, 4)
    with refuses(ValueError, "width must be an integer of at least 1, got 0"):
        Highway(0)
    with refuses(ValueError, r"x must have shape \(B, 6\), got \(3, 5\)"):
        HighwayNetwork(6, 8, 1, 4)(torch.zeros(3, 5))
