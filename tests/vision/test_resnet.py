import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deepstat.vision.cost import layer_table, parameters
from deepstat.vision.resnet import BasicBlock, Bottleneck, ResNet, SmallResNet
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter, overfits, runs_in

COUNTS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
BILLIONS = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}  # multiply-adds; He et al., 2016, table 1
NETWORKS = {
    "18": lambda **o: ResNet(18, classes=4, width=4, **o),
    "50": lambda **o: ResNet(50, classes=4, width=4, **o),
    "small": lambda **o: SmallResNet(14, classes=4, channels=3, width=8, **o),
}
every_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=list(NETWORKS))


def batch(rows=8, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, size, size, generator=generator), torch.arange(rows) % 4


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "count"), COUNTS.items())
def test_parameters_operations_and_layers(depth, count):
    with torch.device("meta"):
        model = ResNet(depth)
        table = layer_table(model, (1, 3, 224, 224))
        moved = ResNet(depth, stride_in=2)
    assert parameters(model) == parameters(moved) == count
    main_path = table[table["type"].isin(["Conv2d", "Linear"]) & ~table["name"].str.contains("skip")]
    assert len(main_path) == depth
    # the paper's numbers have one decimal, cut or rounded
    assert abs(table["multiply_adds"].sum() / 1e9 - BILLIONS[depth]) < 0.07
    sizes = layer_table(model, (1, 3, 224, 224), whole=(nn.Sequential,))
    stages = [shape[1] for shape in sizes[sizes["name"].str.match(r"stages\.\d$")]["output"]]
    assert stages == [56, 28, 14, 7]


@pytest.mark.slow
def test_the_stride_in_the_second_convolution_costs_more():
    with torch.device("meta"):
        tables = [layer_table(ResNet(50, stride_in=k), (1, 3, 224, 224)) for k in (1, 2)]
    first, second = (table["multiply_adds"].sum() for table in tables)
    assert (first, second) == (3_857_973_248, 4_089_184_256)


def test_a_block_is_the_residual_plus_the_input():
    torch.manual_seed(0)
    block, h = BasicBlock(4, 4), torch.randn(3, 4, 6, 6)
    residual = block.norm2(block.conv2(torch.relu(block.norm1(block.conv1(h)))))
    torch.testing.assert_close(block(h), torch.relu(residual + h))
    plain = BasicBlock(4, 4, skip=False)
    plain.load_state_dict(block.state_dict())
    torch.testing.assert_close(plain(h), torch.relu(residual))
    deep, g = Bottleneck(8, 2), torch.randn(3, 8, 6, 6)
    residual = torch.relu(deep.norm1(deep.conv1(g)))
    residual = deep.norm3(deep.conv3(torch.relu(deep.norm2(deep.conv2(residual)))))
    torch.testing.assert_close(deep(g), torch.relu(residual + g))
    assert [c.kernel_size[0] for c in (deep.conv1, deep.conv2, deep.conv3)] == [1, 3, 1]


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_block_whose_last_scale_is_zero_passes_what_is_not_negative(kind):
    block = kind(4 * kind.expansion, 4)
    last = block.norm2 if kind is BasicBlock else block.norm3
    nn.init.zeros_(last.weight)
    h = torch.rand(2, 4 * kind.expansion, 5, 5)
    assert torch.equal(block(h), h)
    assert isinstance(block.skip, nn.Identity)


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
@pytest.mark.parametrize(("channels", "stride"), [(8, 2), (5, 1), (5, 2)])
def test_a_projection_where_shapes_change(kind, channels, stride):
    torch.manual_seed(0)
    width = 8 // kind.expansion
    block, h = kind(channels, width, stride), torch.randn(2, channels, 7, 7)
    side = -(-7 // stride)
    assert block(h).shape == (2, 8, side, side)
    projection, norm = block.skip
    expected = norm(nn.functional.conv2d(h, projection.weight, stride=stride))
    torch.testing.assert_close(block.skip(h), expected)
    assert projection.kernel_size == (1, 1)


def test_plain_networks_have_the_same_layers_without_skips():
    with torch.device("meta"):
        plain, residual = (SmallResNet(20, skip=skip) for skip in (False, True))
        projections = sum(parameters(block.skip) for block in residual.blocks)
        assert parameters(residual) - parameters(plain) == projections == 16 * 32 + 64 + 32 * 64 + 128
        assert parameters(SmallResNet(20, channels=3)) - projections == 269_722  # the paper says 0.27 million
        assert all(block.skip is None for block in plain.blocks)
        table = layer_table(plain, (1, 1, 8, 8))
    assert table["type"].isin(["Conv2d", "Linear"]).sum() == 20
    assert [shape[1:] for shape in table["output"]][-3] == (2, 2)


@every_network
@pytest.mark.parametrize("skip", [True, False])
def test_every_device_and_dtype(build, skip, device):
    torch.manual_seed(0)
    runs_in(build(skip=skip), batch(2)[0], 4, device)


@every_network
def test_gradients(build):
    torch.manual_seed(0)
    model, (x, y) = build(), batch(size=64)
    gradients_reach_every_parameter(model, cross_entropy(model(x), y))


@pytest.mark.slow
@every_network
def test_one_batch(build):
    torch.manual_seed(0)
    overfits(build(), *batch(size=64), steps=30, rate=3e-3)


@pytest.mark.slow
@every_network
def test_compiles(build, monkeypatch):
    torch.manual_seed(0)
    compiles(build(), batch(2)[0], monkeypatch)


def test_start():
    torch.manual_seed(0)
    model = ResNet(18, width=16)
    weight = model.stages[1][0].conv1.weight  # 32 filters of 16 channels: fan-out 288
    assert weight.std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.05)


def test_refusals():
    with refuses(ValueError, "depth must be one of 18, 34, 50, 101, 152, got 20"):
        ResNet(20)
    for depth in (2, 9, 21):
        with refuses(ValueError, rf"depth must be 6n \+ 2, such as 8, 14 or 20, got {depth}"):
            SmallResNet(depth)
    with refuses(ValueError, "stride_in must be 1 or 2, got 3"):
        ResNet(50, stride_in=3)
    with refuses(ValueError, "width must be an integer of at least 1, got 0"):
        ResNet(18, width=0)
    for shape in ((1, 3, 31, 32), (1, 1, 32, 32), (3, 32, 32)):
        with refuses(ValueError, r"h and w of at least 32, such as \(B, 3, 224, 224\), got"):
            ResNet(18, width=2)(torch.zeros(shape))
    with refuses(ValueError, r"h and w of at least 4, such as \(B, 1, 28, 28\), got \(1, 1, 3, 8\)"):
        SmallResNet(8)(torch.zeros(1, 1, 3, 8))


@pytest.mark.slow
def test_the_full_networks_run_once():
    for depth in (18, 50):
        with torch.no_grad():
            assert ResNet(depth).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
