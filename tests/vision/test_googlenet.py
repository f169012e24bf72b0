import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deepstat.vision.cost import layer_table, parameters
from deepstat.vision.googlenet import MODULES, Auxiliary, GoogLeNet, Inception, Logits, loss
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter, overfits, runs_in

NARROW = {"classes": 4, "share": 1 / 16, "units": 32}
both = pytest.mark.parametrize("variant", [False, True], ids=["published", "variant"])


def batch(rows=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, 224, 224, generator=generator), torch.arange(rows) % 4


def test_parameters():
    with torch.device("meta"):
        assert parameters(GoogLeNet(auxiliary=False)) == 6_998_552
        assert parameters(GoogLeNet()) == 13_378_280
        assert parameters(GoogLeNet(auxiliary=False, variant=True)) == 6_624_904
        assert parameters(Auxiliary(512, 128, 1024, 1000)) == 3_188_840
        assert parameters(Auxiliary(528, 128, 1024, 1000)) == 3_190_888


def test_the_sizes_of_the_papers_table():
    with torch.device("meta"):
        table = layer_table(GoogLeNet(auxiliary=False), (1, 3, 224, 224), whole=(Inception,))
    modules = {  # output channels and positions
        "3a": (256, 28), "3b": (480, 28), "4a": (512, 14), "4b": (512, 14), "4c": (512, 14),
        "4d": (528, 14), "4e": (832, 14), "5a": (832, 7), "5b": (1024, 7),
    }  # fmt: skip
    outputs = table.set_index("name")["output"]
    assert list(MODULES) == list(modules)
    for name, (channels, size) in modules.items():
        assert outputs[f"inception.{name}"] == (channels, size, size)
    rest = table[table["type"] != "Inception"]["output"].tolist()
    stem = [(64, 112, 112), (64, 56, 56), (64, 56, 56), (192, 56, 56), (192, 28, 28)]
    assert rest == [*stem, (480, 14, 14), (832, 7, 7), (1024, 1, 1), (1000,)]


@both
def test_max_pooling_rounds_up_without_padding(variant):
    """Padding 1 would give the same sizes from other windows."""
    model = GoogLeNet(auxiliary=False, variant=variant, **NARROW)
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d) and m.stride == 2]
    assert [(m.kernel_size, m.padding, m.ceil_mode) for m in pools] == 4 * [(3, 0, True)]


@both
def test_start(variant):
    torch.manual_seed(0)
    model = GoogLeNet(auxiliary=False, variant=variant, classes=4, share=1 / 4)
    weights = [module.three[1][0].weight for module in model.inception.values()]
    for weight in weights:
        assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.1)
    assert all((layer.bias == 0).all() for layer in model.modules() if getattr(layer, "bias", None) is not None)


def test_22_layers():
    """Counted as in the paper: layers with parameters on the longest path."""
    assert 1 + 2 + 2 * len(MODULES) + 1 == 22
    module = Inception(8, 2, (2, 2), (2, 2), 2)
    paths = [sum(isinstance(m, nn.Conv2d) for m in path.modules()) for path in module.children()]
    assert paths == [1, 2, 2, 1]


def test_a_module_is_its_four_paths_side_by_side():
    torch.manual_seed(0)
    module = Inception(192, *MODULES["3a"])
    x = torch.randn(2, 192, 7, 7)
    y = module(x)
    assert y.shape == (2, 256, 7, 7)
    relu, conv = torch.relu, nn.functional.conv2d
    one, (three, _), (five, _), last = module.one[0], *(
        [path[0][0], path[1][0]] for path in (module.three, module.five)
    ), module.pool[1][0]
    second, third = module.three[1][0], module.five[1][0]
    assert second.kernel_size == (3, 3)
    assert third.kernel_size == (5, 5)
    expected = [
        relu(conv(x, one.weight, one.bias)),
        relu(conv(relu(conv(x, three.weight, three.bias)), second.weight, second.bias, padding=1)),
        relu(conv(relu(conv(x, five.weight, five.bias)), third.weight, third.bias, padding=2)),
        relu(conv(nn.functional.max_pool2d(x, 3, 1, 1), last.weight, last.bias)),
    ]
    torch.testing.assert_close(y, torch.cat(expected, 1))
    assert [part.shape[1] for part in expected] == [64, 128, 32, 32]


def test_the_variant_differs_as_documented():
    with torch.device("meta"):
        published, variant = GoogLeNet(auxiliary=False), GoogLeNet(auxiliary=False, variant=True)
    kernels = [
        sorted({m.kernel_size[0] for m in model.modules() if isinstance(m, nn.Conv2d)}) for model in (published, variant)
    ]
    assert kernels == [[1, 3, 5, 7], [1, 3, 7]]
    names = [{type(m).__name__ for m in model.modules()} for model in (published, variant)]
    assert "LocalResponseNorm" in names[0]
    assert "BatchNorm2d" not in names[0]
    assert "LocalResponseNorm" not in names[1]
    assert "BatchNorm2d" in names[1]


@both
def test_every_device_and_dtype(variant, device):
    torch.manual_seed(0)
    runs_in(GoogLeNet(variant=variant, **NARROW), batch(2)[0], 4, device)


@both
def test_gradients_reach_all_in_training(variant):
    torch.manual_seed(0)
    model = GoogLeNet(variant=variant, classes=4, share=1 / 8, units=32)
    x, y = batch(4)
    outputs = model(x)
    assert isinstance(outputs, Logits)
    assert all(part.shape == (4, 4) for part in outputs)
    gradients_reach_every_parameter(model, loss(outputs, y))


@pytest.mark.slow
@both
def test_one_batch(variant):
    torch.manual_seed(0)
    overfits(GoogLeNet(variant=variant, classes=4, share=1 / 8, units=32), *batch(4), loss=loss, steps=30, rate=3e-3)


def test_auxiliary_classifiers_see_4a_and_4d_and_only_in_training():
    torch.manual_seed(0)
    model = GoogLeNet(**NARROW)
    x, _ = batch(1)
    seen = {}
    for name, module in model.inception.items():
        module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, o))
    inputs = []
    for head in model.auxiliary:
        head.register_forward_pre_hook(lambda m, i: inputs.append(i[0]))
    model(x)
    assert len(inputs) == 2
    assert inputs[0] is seen["4a"]
    assert inputs[1] is seen["4d"]
    assert isinstance(model.eval()(x), torch.Tensor)
    assert len(inputs) == 2
    assert isinstance(GoogLeNet(auxiliary=False, **NARROW).train()(x), torch.Tensor)


def test_loss():
    main, first, second = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 3, 0])
    parts = [cross_entropy(part, y) for part in (main, first, second)]
    torch.testing.assert_close(loss(Logits(main, first, second), y), parts[0] + 0.3 * parts[1] + 0.3 * parts[2])
    torch.testing.assert_close(loss(main, y), parts[0])


@pytest.mark.slow
@both
def test_compiles(variant, monkeypatch):
    torch.manual_seed(0)
    compiles(GoogLeNet(variant=variant, **NARROW), batch(2)[0], monkeypatch)


def test_other_sizes_without_auxiliary_classifiers():
    model = GoogLeNet(auxiliary=False, **NARROW).eval()
    for size in (32, 100, 225):
        assert model(torch.zeros(1, 3, size, size)).shape == (1, 4)


def test_refusals():
    for shape in ((1, 3, 31, 64), (1, 1, 224, 224)):
        with refuses(ValueError, r"x must have shape \(B, 3, h, w\) .* such as \(B, 3, 224, 224\), got"):
            GoogLeNet(**NARROW)(torch.zeros(shape))
    with refuses(ValueError, "4 x 4 positions .* images of 224 x 224 pixels do, got 1 x 1"):
        GoogLeNet(**NARROW)(torch.zeros(2, 3, 112, 112))
    for share in (0.0, 2.0):
        with refuses(ValueError, "share must be between 1/16 and 1"):
            GoogLeNet(share=share)
    with refuses(ValueError, "classes must be an integer of at least 1, got 0"):
        GoogLeNet(classes=0)


@pytest.mark.slow
@both
def test_the_full_network_runs_once(variant):
    model = GoogLeNet(variant=variant)
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 224, 224)).second.shape == (2, 1000)
        assert model.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
