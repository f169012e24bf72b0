import pytest
import torch
from torch.nn.functional import cross_entropy

from deepstat.foundations.normalization import local_response_norm
from deepstat.vision.alexnet import AlexNet, LocalResponseNorm, OneTowerAlexNet
from deepstat.vision.cost import layer_table, parameters
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter, overfits, runs_in

NARROW = {"filters": (8, 8, 8, 8, 8), "units": 16, "classes": 4}
BOTH = [(AlexNet, 227), (OneTowerAlexNet, 224)]
both = pytest.mark.parametrize(("kind", "size"), BOTH, ids=["2012", "one tower"])


def batch(size, rows=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, size, size, generator=generator), torch.arange(rows) % 4


def test_parameters():
    with torch.device("meta"):
        assert parameters(AlexNet()) == 60_965_224
        assert parameters(AlexNet(groups=1)) == 62_378_344
        assert parameters(OneTowerAlexNet()) == 61_100_840


def test_the_sizes_of_the_papers_figure():
    with torch.device("meta"):
        table = layer_table(AlexNet(), (1, 3, 227, 227))
    sizes = [(96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    assert table["output"].tolist() == [*sizes, (256, 6, 6), (4096,), (4096,), (1000,)]


def test_normalization_follows_the_first_two_convolutions_only():
    order = [type(layer).__name__ for layer in AlexNet(**NARROW).features]
    first = ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"]
    assert order == 2 * first + 3 * ["Conv2d", "ReLU"] + ["MaxPool2d"]
    x = 30 * torch.randn(2, 6, 3, 3)
    assert torch.equal(LocalResponseNorm()(x), local_response_norm(x))
    assert "LocalResponseNorm" not in {type(layer).__name__ for layer in OneTowerAlexNet(**NARROW).features}


def test_two_groups_are_two_towers_that_meet_in_the_third_convolution():
    torch.manual_seed(0)
    model = AlexNet(**NARROW).eval()
    x = torch.randn(1, 3, 227, 227)
    h = x
    with torch.no_grad():
        for layer in model.features[:4]:
            h = layer(h)
        changed = h.clone()
        changed[:, 4:] += 1  # the second tower's half
        difference = (model.features[4](changed) - model.features[4](h)).abs().amax((0, 2, 3))
        assert (difference[:4] == 0).all()
        assert (difference[4:] > 0).all()
        assert model.features[8].groups == 1


@both
def test_every_device_and_dtype(kind, size, device):
    torch.manual_seed(0)
    runs_in(kind(**NARROW), batch(size)[0], 4, device)


@both
def test_gradients(kind, size):
    torch.manual_seed(0)
    model = kind(**NARROW).eval()
    x, y = batch(size)
    gradients_reach_every_parameter(model, cross_entropy(model(x), y))


@pytest.mark.slow
@both
def test_one_batch(kind, size):
    torch.manual_seed(0)
    x, y = batch(size)
    overfits(kind(filters=(16, 16, 16, 16, 16), units=64, classes=4), x, y, steps=40, rate=3e-3)


@pytest.mark.slow
@both
def test_compiles(kind, size, monkeypatch):
    torch.manual_seed(0)
    compiles(kind(**NARROW), batch(size, 2)[0], monkeypatch)


def test_dropout_is_where_the_paper_has_it():
    torch.manual_seed(0)
    names = [type(layer).__name__ for layer in AlexNet(**NARROW).classifier]
    assert names == ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]
    assert AlexNet(**NARROW).classifier[0].p == 0.5


@both
def test_refusals(kind, size):
    model = kind(**NARROW)
    for shape in ((1, 3, 64, 64), (1, 3, size, 260), (1, 1, size, size), (3, size, size)):
        with refuses(ValueError, rf"x must have shape \(B, 3, {size}, {size}\) or .* 6 x 6 .* got"):
            model(torch.zeros(shape))
    with refuses(ValueError, "units must be an integer of at least 1, got 0"):
        kind(units=0)


def test_224_is_too_small_for_the_published_form():
    """The paper's 224: the first convolution without padding then gives 54 rows, not 55, and 5 x 5 positions are left."""
    model = AlexNet(**NARROW)
    with refuses(ValueError, r"\(B, 3, 227, 227\)"):
        model(torch.zeros(1, 3, 224, 224))
    for size in (227, 230):
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 4)


@pytest.mark.slow
def test_the_full_networks_run_once():
    for kind, size in BOTH:
        with torch.no_grad():
            assert kind().eval()(torch.zeros(1, 3, size, size)).shape == (1, 1000)
