import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from deepstat.foundations.activations import ParametricReLU
from deepstat.foundations.mlp import MLP, linear_spline_network, parameter_count
from helpers import refuses


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (2, 4, 4, 4, 1)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_it_is_the_equations_written_out(widths, activation, device):
    model = MLP(widths, activation).double().to(device)
    x = torch.randn(7, widths[0], dtype=torch.float64, device=device)
    a = {"relu": torch.relu, "tanh": torch.tanh, "gelu": nn.functional.gelu}[activation]
    for i in range(len(x)):
        h = x[i]
        for layer in model.layers[:-1]:
            h = a(layer.bias + layer.weight @ h)
        torch.testing.assert_close(model(x)[i], model.layers[-1].bias + model.layers[-1].weight @ h)


@pytest.mark.parametrize("widths", [(1, 1), (2, 12, 1), (2, 4, 4, 4, 1), (30, 64, 2)])
def test_parameters_are_counted(widths):
    model = MLP(widths)
    assert parameter_count(widths) == sum(parameter.numel() for parameter in model.parameters())


def test_known_parameter_counts():
    assert parameter_count((2, 12, 1)) == 49
    assert parameter_count((2, 4, 4, 4, 1)) == 57
    assert parameter_count((784, 100_000, 10)) == 79_500_010


def test_relabelling_hidden_units_changes_nothing():
    model, permuted = MLP((3, 6, 2)), MLP((3, 6, 2))
    order = torch.randperm(6)
    permuted.load_state_dict(
        {
            "layers.0.weight": model.layers[0].weight[order],
            "layers.0.bias": model.layers[0].bias[order],
            "layers.1.weight": model.layers[1].weight[:, order],
            "layers.1.bias": model.layers[1].bias,
        }
    )
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x), permuted(x))


def test_it_follows_dtype_and_leading_axes_and_trains_an_activation():
    model = MLP((3, 4, 2), ParametricReLU()).to(torch.bfloat16)
    y = model(torch.ones(5, 6, 3, dtype=torch.bfloat16))
    assert y.shape == (5, 6, 2)
    assert y.dtype == torch.bfloat16
    assert len(list(model.parameters())) == 5


@pytest.mark.slow
def test_it_is_captured_as_one_graph_by_torch_compile(monkeypatch):
    """The eager backend traces and needs no C++ compiler; the run-time checks of shapes cannot be traced."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch._dynamo.reset()
    for activation in ("relu", "gelu", "selu", "silu"):
        model = MLP((3, 4, 2), activation)
        x = torch.randn(5, 3)
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_the_spline_network_interpolates_linearly(device):
    rng = np.random.default_rng(0)
    knots, values = np.sort(rng.uniform(-3, 3, 9)), rng.normal(size=9)
    model = linear_spline_network(torch.tensor(knots, device=device), torch.tensor(values, device=device))
    assert model.widths == (1, 8, 1)
    x = np.linspace(knots[0] - 1, knots[-1], 500)  # np.interp is constant on the left, as the network is
    y = model(torch.tensor(x, device=device)[:, None])[:, 0].detach().cpu().numpy()
    np.testing.assert_allclose(y, np.interp(x, knots, values), atol=1e-12)


@pytest.mark.parametrize(
    ("exception", "arguments", "message"),
    [
        (ValueError, ((3, 2), "rectifier"), "activation must be one of sigmoid, .*got 'rectifier'"),
        (TypeError, ((3, 2), 3), "name or a function, got int"),
        (ValueError, ((3,),), "at least two numbers"),
        (ValueError, ((3, 0, 1),), r"at least 1, got \(3, 0, 1\)"),
        (ValueError, ((3, -4, 1),), "at least 1"),
        (TypeError, ((3, 2.5, 1),), "integers"),
    ],
)
def test_impossible_networks_are_refused(exception, arguments, message):
    with refuses(exception, message):
        MLP(*arguments)
    if len(arguments) == 1:
        with refuses(exception, message):
            parameter_count(*arguments)


def test_a_wrong_input_is_refused_with_both_shapes():
    with refuses(ValueError, r"\(\.\.\., 3\), got \(2, 4\)"):
        MLP((3, 2))(torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("knots", "values", "message"),
    [
        ([0.0], [1.0], "at least 1"),
        ([0.0, 1.0], [1.0], "same shape"),
        ([0.0, 0.0], [1.0, 2.0], "increase strictly"),
        ([0.0, float("nan")], [1.0, 2.0], "increase strictly"),
        ([0.0, 1.0], [1.0, float("nan")], "must be finite"),
    ],
)
def test_bad_knots_are_refused(knots, values, message):
    with refuses(ValueError, message):
        linear_spline_network(torch.tensor(knots), torch.tensor(values))
