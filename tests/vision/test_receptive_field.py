import pytest
import torch
from torch import nn

from deepstat.vision.receptive_field import Field, Window, influence, receptive_fields
from helpers import refuses

STACKS = [
    [Window(3), Window(3), Window(3)],
    [Window(5), Window(2, 2), Window(5), Window(2, 2)],
    [Window(3, 2, 1), Window(3, 1, 1), Window(4, 2, 0), Window(1)],
    [Window(7, 3, 2), Window(2, 1, 1)],
]


def network(stack):
    """Convolutions with positive weights, so that no two paths cancel."""
    layers = nn.Sequential(*(nn.Conv2d(1, 1, k, s, p, bias=False) for k, s, p in stack)).double()
    for parameter in layers.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    return layers


@pytest.mark.parametrize("stack", STACKS)
def test_the_recursion_is_where_gradients_arrive(stack):
    size, torch_model = 41, network(stack)
    x = torch.rand(1, 1, size, size, dtype=torch.float64)
    field = receptive_fields(stack)[-1]
    shape = torch_model(x).shape
    for row, column in ((0, 0), (shape[2] // 2, 1), (shape[2] - 1, shape[3] - 1)):
        seen = influence(torch_model, x, row, column) > 0
        expected = torch.zeros_like(seen)
        top, left = (field.start + field.jump * i for i in (row, column))
        expected[max(top, 0) : top + field.size, max(left, 0) : left + field.size] = True
        assert torch.equal(seen, expected)


def test_pixels_that_no_window_reaches_are_in_no_field():
    stack = [Window(2, 2), Window(3, 1, 1)]  # the first leaves the last of five pixels out
    field = receptive_fields(stack)[-1]
    assert field == Field(6, 2, -2)
    seen = influence(network(stack), torch.rand(1, 1, 5, 5, dtype=torch.float64), 1, 1) > 0
    assert seen[0].tolist() == [True, True, True, True, False]


def test_known_numbers():
    assert receptive_fields([Window(3)] * 3)[-1] == Field(7, 1, 0)  # three 3 x 3 layers see 7 x 7
    lenet = receptive_fields([Window(5), Window(2, 2), Window(5), Window(2, 2), Window(5)])
    assert [field.size for field in lenet] == [5, 6, 14, 16, 32]
    assert [field.jump for field in lenet] == [1, 2, 2, 4, 4]
    assert receptive_fields([Window(7, 2, 3), Window(3, 2, 1)])[-1] == Field(11, 4, -5)  # ResNet's stem


def test_influence_is_the_sum_of_absolute_derivatives():
    model = nn.Conv2d(2, 3, 3, bias=False).double()
    x = torch.rand(4, 2, 5, 5, dtype=torch.float64)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[1:4, 2:5] = 4 * model.weight.detach().sum(0).abs().sum(0)
    with torch.no_grad():
        torch.testing.assert_close(influence(model, x, 1, 2), expected)
    assert not x.requires_grad


def test_refusals():
    with refuses(ValueError, "layers must hold at least one layer, got none"):
        receptive_fields([])
    with refuses(ValueError, "kernel must be at least 1, got 0"):
        receptive_fields([Window(0)])
    with refuses(ValueError, "stride must be at least 1, got 0"):
        receptive_fields([Window(3, 0)])
    with refuses(ValueError, "padding must be at least 0, got -1"):
        receptive_fields([Window(3, 1, -1)])
    x = torch.rand(1, 1, 5, 5)
    with refuses(ValueError, "row and column must lie in maps of 5 x 5, got 5 and 0"):
        influence(lambda x: 2 * x, x, 5, 0)
    with refuses(ValueError, r"model must return maps .*, got \(1, 25\)"):
        influence(lambda x: x.flatten(1), x, 0, 0)
