import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from deepstat.vision import cost
from deepstat.vision.alexnet import AlexNet, OneTowerAlexNet
from deepstat.vision.densenet import DenseNet
from deepstat.vision.googlenet import GoogLeNet, Inception
from deepstat.vision.resnet import BasicBlock, ResNet
from deepstat.vision.vgg import VGG
from helpers import refuses

FULL_SIZE = {
    "AlexNet": (AlexNet, 227),
    "AlexNet without groups": (lambda: AlexNet(groups=1), 227),
    "AlexNet, one tower": (OneTowerAlexNet, 224),
    "VGG-16": (lambda: VGG(16), 224),
    "GoogLeNet": (GoogLeNet, 224),
    "ResNet-18": (lambda: ResNet(18), 224),
    "ResNet-50": (lambda: ResNet(50), 224),
    "DenseNet-121": (DenseNet, 224),
}


@pytest.mark.slow
@pytest.mark.parametrize(("build", "size"), FULL_SIZE.values(), ids=list(FULL_SIZE))
def test_multiply_adds_are_half_of_pytorchs_flops(build, size):
    """PyTorch counts an operation for each multiplication and one for each addition."""
    with torch.device("meta"):
        model = build().eval()
        x = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        model(x)
    table = cost.layer_table(model, (1, 3, size, size))
    assert 2 * table["multiply_adds"].sum() == counter.get_total_flops()


def test_a_table_by_hand():
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    table = cost.layer_table(model, (1, 4, 8, 8))
    assert table["type"].tolist() == ["Conv2d", "MaxPool2d", "Linear"]
    assert table["name"].tolist() == ["0", "3", "5"]
    assert table["output"].tolist() == [(6, 4, 4), (6, 2, 2), (5,)]
    assert table["parameters"].tolist() == [6 * 2 * 9 + 6, 0, 24 * 5 + 5]
    assert table["multiply_adds"].tolist() == [4 * 4 * 6 * 2 * 9, 0, 24 * 5]
    assert table["filters"].tolist()[0] == 6
    assert table["filters"].tolist()[2] == 5
    assert table[["kernel", "stride", "padding"]].iloc[0].tolist() == [3, 2, 1]
    assert table[["kernel", "stride", "padding"]].iloc[1].tolist() == [2, 2, 0]
    assert table[["kernel", "stride", "padding"]].iloc[2].isna().all()


def test_a_module_as_one_row_has_the_sums_of_its_layers():
    with torch.device("meta"):
        model = GoogLeNet(auxiliary=False)
    fine = cost.layer_table(model, (1, 3, 224, 224))
    coarse = cost.layer_table(model, (1, 3, 224, 224), whole=(Inception,))
    assert coarse["multiply_adds"].sum() == fine["multiply_adds"].sum()
    assert coarse["parameters"].sum() == fine["parameters"].sum() == cost.parameters(model)
    modules = coarse[coarse["type"] == "Inception"].set_index("name")
    assert len(modules) == 9
    inside = fine[fine["name"].str.startswith("inception.3a.")]
    assert modules.loc["inception.3a", "multiply_adds"] == inside["multiply_adds"].sum()
    assert modules.loc["inception.3a", "output"] == (256, 28, 28)


def test_the_table_leaves_the_model_as_it_was(device):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(device)
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = cost.layer_table(model, (1, 1, 5, 5))
    assert model.training
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    assert not model[0]._forward_hooks
    assert table["parameters"].tolist() == [2]  # the bias; the frozen weight is not trained
    with pytest.raises(RuntimeError):
        cost.layer_table(model, (1, 7, 5, 5))
    assert not model[0]._forward_hooks
    assert model.training


def test_a_shared_parameter_counts_once():
    layer = nn.Linear(3, 3)
    assert cost.parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 12


def test_a_step_takes_time_and_leaves_the_model_alone(device):
    torch.manual_seed(0)
    model = nn.Sequential(BasicBlock(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).to(device)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.randn(4, 3, 8, 8, device=device), torch.tensor([0, 1, 2, 0], device=device)
    for options in ({}, {"bfloat16": True}, {"channels_last": True}):
        assert 0 < cost.seconds_per_step(model, cross_entropy, x, y, steps=2, **options) < 60
    assert all((value == before[name]).all() for name, value in model.state_dict().items())


def test_what_is_timed_is_training_in_the_asked_precision_and_layout(device):
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            h = self.convolution(x)
            last = x.is_contiguous(memory_format=torch.channels_last)
            seen.append((self.training, h.dtype, last, self.convolution.weight.detach().clone()))
            return h.mean((2, 3))

    x, y = torch.randn(4, 3, 8, 8, device=device), torch.tensor([0, 1, 1, 0], device=device)
    model = Spy().to(device).eval()
    cost.seconds_per_step(model, cross_entropy, x, y, steps=2)
    assert [entry[:3] for entry in seen] == [(True, torch.float32, False)] * 5  # three to warm up
    assert (seen[0][3] != seen[-1][3]).any()
    seen.clear()
    cost.seconds_per_step(model, cross_entropy, x, y, steps=1, bfloat16=True, channels_last=True)
    assert {entry[:3] for entry in seen} == {(True, torch.bfloat16, True)}


def test_refusals():
    with refuses(ValueError, r"shape must begin with 1, the batch, got \(2, 3\)"):
        cost.layer_table(nn.Linear(3, 1), (2, 3))
    for bad in (0, -1, True, 1.5):
        with refuses(ValueError, "width must be an integer of at least 1"):
            cost.check_sizes(width=bad)
