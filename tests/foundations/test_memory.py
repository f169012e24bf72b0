import weakref

import pytest
import torch
from torch import nn

from deepstat.foundations.memory import predicted_bytes, saved_bytes, step_bytes
from deepstat.foundations.mlp import MLP
from helpers import refuses

OPTIMIZERS = {
    "SGD": (0, lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (1, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "Adagrad": (1, lambda p: torch.optim.Adagrad(p)),
    "Adam": (2, lambda p: torch.optim.Adam(p)),
}


@pytest.mark.parametrize("widths", [(3, 1), (10, 32, 1), (5, 16, 8, 4, 2)])
@pytest.mark.parametrize(("activation", "kept"), [(torch.relu, 0), (torch.tanh, 0), (nn.functional.gelu, 1)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_prediction_is_what_is_counted(widths, activation, kept, name, device):
    states, make = OPTIMIZERS[name]
    model = MLP(widths, activation).to(device)
    x, y = torch.randn(7, widths[0], device=device), torch.randn(7, widths[-1], device=device)
    counted = step_bytes(model, nn.functional.mse_loss, x, y, make(model.parameters()))
    assert counted == predicted_bytes(widths, 7, states=states, kept_by_activation=kept)


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float64, 8), (torch.bfloat16, 2)])
def test_the_size_of_a_number_counts(dtype, itemsize):
    model = MLP((4, 6, 1), torch.relu).to(dtype)
    x, y = torch.randn(5, 4, dtype=dtype), torch.randn(5, 1, dtype=dtype)
    counted = step_bytes(model, nn.functional.mse_loss, x, y, torch.optim.Adam(model.parameters()))
    assert counted == predicted_bytes((4, 6, 1), 5, itemsize=itemsize)


def test_known_numbers():
    assert predicted_bytes((784, 300, 10), 100) == {
        "parameters": 4 * 238_510,
        "gradients": 4 * 238_510,
        "optimizer": 8 * 238_510,
        "saved": 400 * (784 + 300 + 20),
    }


def test_what_is_saved_for_simple_functions(device):
    x = torch.randn(10, device=device, requires_grad=True)
    y = torch.randn(10, device=device, requires_grad=True)
    assert saved_bytes(lambda: x.sum()) == 0
    assert saved_bytes(lambda: x.exp()) == 40  # its result
    assert saved_bytes(lambda: (x * y).sum()) == 80
    assert saved_bytes(lambda: (x * y).sum(), exclude=[x]) == 40
    assert saved_bytes(lambda: (x * x).sum()) == 40  # one storage, kept twice
    with torch.no_grad():
        assert saved_bytes(lambda: (x * y).sum()) == 0


def test_what_was_counted_is_freed():
    x, results = torch.randn(10, requires_grad=True), []

    def compute():
        result = x.exp()  # saved by its own graph
        results.append(weakref.ref(result))
        return result.sum()

    assert saved_bytes(compute) == 40
    assert results[0]() is None


def test_the_counted_step_is_a_step():
    torch.manual_seed(0)
    model = MLP((3, 4, 1))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    x, y = torch.randn(6, 3), torch.randn(6, 1)
    step_bytes(model, nn.functional.mse_loss, x, y, torch.optim.SGD(model.parameters(), lr=0.1))
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * new.grad)


@pytest.mark.parametrize(
    ("changes", "exception", "message"),
    [
        ({"widths": (3,)}, ValueError, "widths must hold at least two"),
        ({"widths": (3, 1.5)}, TypeError, "widths must be integers"),
        ({"rows": 0}, ValueError, "rows must be at least 1, got 0"),
        ({"itemsize": 0}, ValueError, "itemsize must be at least 1, got 0"),
        ({"states": -1}, ValueError, "states must be at least 0, got -1"),
        ({"kept_by_activation": -1}, ValueError, "kept_by_activation must be at least 0, got -1"),
    ],
)
def test_bad_input_is_refused(changes, exception, message):
    with refuses(exception, message):
        predicted_bytes(**({"widths": (3, 1), "rows": 2} | changes))
