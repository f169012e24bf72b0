import pytest
import torch
from torch.nn.functional import cross_entropy

from deepstat.vision.cost import layer_table, parameters
from deepstat.vision.densenet import DenseLayer, DenseNet, dense_block
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter, overfits, runs_in

COUNTS = {121: 7_978_856, 169: 14_149_480, 201: 20_013_928}


def batch(rows=4, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, size, size, generator=generator), torch.arange(rows) % 4


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "count"), COUNTS.items())
def test_parameters_and_layers(depth, count):
    with torch.device("meta"):
        model = DenseNet(depth)
        table = layer_table(model, (1, 3, 224, 224))
    assert parameters(model) == count
    assert table["type"].isin(["Conv2d", "Linear"]).sum() == depth
    transitions = table[(table["type"] == "AvgPool2d")]["output"].tolist()
    assert [shape[1] for shape in transitions] == [28, 14, 7]  # Huang et al., table 1


def test_a_layer_keeps_its_input_and_adds_channels():
    torch.manual_seed(0)
    layer, h = DenseLayer(6, 3), torch.randn(4, 6, 5, 5)
    y = layer(h)
    assert y.shape == (4, 9, 5, 5)
    assert torch.equal(y[:, :6], h)
    torch.testing.assert_close(y[:, 6:], layer.new(h))
    kinds = [type(part).__name__ for part in layer.new]
    assert kinds == 2 * ["BatchNorm2d", "ReLU", "Conv2d"]
    assert layer.new[2].out_channels == 12


def test_a_block():
    block = dense_block(6, 3, 4)
    assert [layer.new[2].in_channels for layer in block] == [6, 9, 12, 15]
    assert block(torch.randn(2, 6, 4, 4)).shape == (2, 18, 4, 4)


def test_every_device_and_dtype(device):
    torch.manual_seed(0)
    runs_in(DenseNet(121, classes=4, growth=2), batch(2)[0], 4, device)


def test_gradients():
    torch.manual_seed(0)
    model, (x, y) = DenseNet(121, classes=4, growth=4), batch(size=64)
    gradients_reach_every_parameter(model, cross_entropy(model(x), y))


@pytest.mark.slow
def test_one_batch():
    torch.manual_seed(0)
    overfits(DenseNet(121, classes=4, growth=4), *batch(size=64), steps=30)


@pytest.mark.slow
def test_compiles(monkeypatch):
    torch.manual_seed(0)
    compiles(DenseNet(121, classes=4, growth=2), batch(2)[0], monkeypatch)


def test_refusals():
    with refuses(ValueError, "depth must be one of 121, 169, 201, got 100"):
        DenseNet(100)
    with refuses(ValueError, "growth must be an integer of at least 1, got 0"):
        DenseNet(121, growth=0)
    model = DenseNet(121, classes=4, growth=2)
    for shape in ((1, 3, 31, 32), (1, 1, 64, 64)):
        with refuses(ValueError, r"x must have shape \(B, 3, h, w\) .* such as \(B, 3, 224, 224\), got"):
            model(torch.zeros(shape))


@pytest.mark.slow
def test_the_full_network_runs_once():
    with torch.no_grad():
        assert DenseNet().eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
