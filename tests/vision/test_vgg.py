import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deepstat.vision.cost import layer_table, parameters
from deepstat.vision.vgg import VGG
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter, overfits, runs_in

NARROW = {"classes": 4, "width": 2, "units": 16}
COUNTS = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}


def batch(rows=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, 224, 224, generator=generator), torch.arange(rows) % 4


@pytest.mark.parametrize(("depth", "count"), COUNTS.items())
def test_parameters_and_layers(depth, count):
    with torch.device("meta"):
        model = VGG(depth)
        table = layer_table(model, (1, 3, 224, 224))
    assert parameters(model) == count
    assert table["type"].isin(["Conv2d", "Linear"]).sum() == depth
    assert (table["type"] == "MaxPool2d").sum() == 5
    convolutions = table[table["type"] == "Conv2d"]
    assert (convolutions[["kernel", "stride", "padding"]] == [3, 1, 1]).all(axis=None)
    assert table["output"].tolist()[-4:] == [(512, 7, 7), (4096,), (4096,), (1000,)]
    # Simonyan and Zisserman, table 2, in millions
    assert round(count / 1e6) == {11: 133, 13: 133, 16: 138, 19: 144}[depth]


def test_every_device_and_dtype(device):
    torch.manual_seed(0)
    runs_in(VGG(11, **NARROW), batch(2)[0], 4, device)


def test_gradients():
    torch.manual_seed(0)
    model = VGG(11, classes=4, width=4, units=32).eval()
    x, y = batch(2)
    gradients_reach_every_parameter(model, cross_entropy(model(x), y))


@pytest.mark.slow
def test_one_batch():
    torch.manual_seed(0)
    overfits(VGG(11, classes=4, width=4, units=32), *batch(), steps=40)


def test_compiles(monkeypatch):
    torch.manual_seed(0)
    compiles(VGG(11, **NARROW), batch(2)[0], monkeypatch)


def test_start():
    torch.manual_seed(0)
    model = VGG(11, classes=4, width=8, units=64)
    weight = model.features[3].weight  # 16 filters of 8 channels
    assert weight.std().item() == pytest.approx((2 / 72) ** 0.5, rel=0.1)
    assert all((layer.bias == 0).all() for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def test_refusals():
    with refuses(ValueError, "depth must be one of 11, 13, 16, 19, got 12"):
        VGG(12)
    with refuses(ValueError, "width must be an integer of at least 1, got 0"):
        VGG(11, width=0)
    model = VGG(11, **NARROW)
    for shape in ((1, 3, 32, 32), (1, 3, 224, 300), (1, 1, 224, 224)):
        with refuses(ValueError, r"x must have shape \(B, 3, 224, 224\) or .* 7 x 7 .* got"):
            model(torch.zeros(shape))


@pytest.mark.slow
def test_the_full_network_runs_once():
    with torch.no_grad():
        assert VGG(16).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
