import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional

from deepstat.vision import transfer
from deepstat.vision.transfer import SmallCNN
from helpers import refuses


def member(model, r):
    """Member r as ordinary layers, from its slices of the parameters."""
    layers = []
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            outputs, inputs = layer.out_channels // model.members, layer.in_channels // model.members
            single = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1).to(layer.weight)
            with torch.no_grad():
                single.weight.copy_(layer.weight[r * outputs : (r + 1) * outputs])
                single.bias.copy_(layer.bias[r * outputs : (r + 1) * outputs])
            layers.append(single)
        else:
            layers.append(nn.ReLU())
    features = nn.Sequential(*layers, nn.Flatten())
    return lambda x: features(x) @ model.weight[r] + model.bias[r]


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_members_are_independent_networks(size, generator, device):
    torch.manual_seed(0)
    model = SmallCNN(4, channels=3, size=size, widths=(5, 6), members=3).double().to(device)
    x = torch.rand(2, 3, 3, size, size, generator=generator, dtype=torch.float64).to(device)
    y = model(x)
    assert y.shape == (2, 3, 4)
    for r in range(3):
        torch.testing.assert_close(y[:, r], member(model, r)(x[:, r]))
    shared = model(x[:, 0])
    torch.testing.assert_close(shared, model(x[:, :1].expand(-1, 3, -1, -1, -1)))
    target = torch.tensor([[0, 1, 2], [3, 3, 0]], device=device)
    alone = sum(functional.cross_entropy(y[:, r], target[:, r]) for r in range(3))
    torch.testing.assert_close(transfer.cross_entropy(y, target), alone)


def test_the_gradient_of_a_member_does_not_see_the_others(generator):
    model = SmallCNN(2, members=3)
    x = torch.rand(4, 3, 1, 8, 8, generator=generator)
    model(x)[:, 1].square().sum().backward()
    for p in model.parameters():
        touched = p.grad.unflatten(0, (3, -1)).flatten(1).abs().sum(1) > 0
        assert touched.tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_runs_in_its_type_and_gradients_reach_every_parameter(dtype, device, generator):
    model = SmallCNN(3, channels=3, size=9, members=2).to(device, dtype)
    y = model(torch.rand(5, 2, 3, 9, 9, generator=generator).to(device, dtype))
    assert y.dtype == dtype
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_compiles(monkeypatch, generator):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.compiler.reset()
    model = SmallCNN(3, members=2).eval()
    x = torch.rand(4, 2, 1, 8, 8, generator=generator)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


def test_it_overfits_one_batch(generator):
    torch.manual_seed(0)
    model = SmallCNN(2, members=2)
    x, y = torch.rand(8, 2, 1, 8, 8, generator=generator), torch.randint(2, (8, 2), generator=generator)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        adam.zero_grad()
        loss = transfer.cross_entropy(model(x), y)
        loss.backward()
        adam.step()
    assert loss.item() < 0.05
    assert torch.equal(model(x).argmax(-1), y)


def test_it_starts_like_pytorchs_layers_and_drops_features_in_training_only():
    torch.manual_seed(0)
    model = SmallCNN(10, members=4, dropout=0.5)
    assert sum(p.numel() for p in model.parameters()) == 4 * (160 + 4640 + 1290)
    bound = 128**-0.5
    assert 0.9 * bound < model.weight.abs().max() <= bound
    assert model.weight.square().mean().item() == pytest.approx(bound**2 / 3, rel=0.1)
    x = torch.rand(3, 1, 8, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_sizes_out_of_range_are_refused():
    for arguments, message in (
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"classes": 2, "size": 0}, "size must be at least 1, got 0"),
        ({"classes": 2, "members": 0}, "members must be at least 1"),
        ({"classes": 2, "widths": (4, 0)}, "widths must be at least 1"),
    ):
        with refuses(ValueError, message):
            SmallCNN(**arguments)
    model = SmallCNN(2, channels=3, size=8, members=2)
    for shape in ((4, 3, 9, 8), (4, 1, 8, 8), (4, 3, 3, 8, 8)):
        with refuses(ValueError, r"\(n, 3, 8, 8\) or \(n, 2, 3, 8, 8\), got"):
            model(torch.rand(shape))


@pytest.mark.parametrize("frozen", [True, False])
def test_features_are_copied_member_by_member_and_frozen_if_asked(frozen, generator):
    torch.manual_seed(0)
    source = SmallCNN(5, members=2, widths=(3, 4)).double()
    model = transfer.transfer(source, classes=3, members=5, frozen=frozen)
    assert (model.members, model.classes, model.widths, model.weight.dtype) == (5, 3, (3, 4), torch.float64)
    x = torch.rand(4, 1, 8, 8, generator=generator, dtype=torch.float64)
    for r in range(5):
        torch.testing.assert_close(model.represent(x)[r], source.represent(x)[r % 2])
    before = source.features[0].weight.clone()
    target = torch.zeros(4, 5, dtype=torch.int64)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    transfer.cross_entropy(model(x), target).backward()
    sgd.step()
    moved = not torch.equal(model.represent(x)[0], source.represent(x)[0])
    assert moved is not frozen
    assert torch.equal(source.features[0].weight, before)
    assert all(p.requires_grad is not frozen for p in model.features.parameters())
    assert model.weight.grad.abs().sum() > 0
