import gc
import itertools
import math
import weakref

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from deepstat.foundations import backpropagation as bp
from deepstat.foundations.activations import ACTIVATIONS
from deepstat.foundations.backpropagation import Operations, Variable
from deepstat.foundations.mlp import MLP
from helpers import refuses

double = torch.float64
first_jvp_warns = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch 2.13's own import


def network(widths, generator=None, **kind):
    """Random weights and biases."""
    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=double).to(**kind)
    pairs = list(itertools.pairwise(widths))
    return [draw(b, a) for a, b in pairs], [draw(b) for _, b in pairs]


def autograd(function, *inputs):
    """The gradients that PyTorch computes, one for each input, zeros for an unused one."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*leaves), leaves, materialize_grads=True)


def assert_close(ours, theirs, tolerance=1e-12):
    ours, theirs = list(ours), list(theirs)
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).abs().max() <= tolerance * max(1, b.abs().max().item())


# The two passes of an MLP


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (4, 6, 5, 3, 2)])
def test_the_forward_pass_is_the_mlps(widths, activation, device):
    model = MLP(widths, activation).to(device, double)
    weights = [layer.weight.detach() for layer in model.layers]
    biases = [layer.bias.detach() for layer in model.layers]
    x = torch.randn(7, widths[0], dtype=double, device=device)
    passed = bp.forward(x, weights, biases, activation)
    assert_close([passed.preactivations[-1]], [model(x).detach()])
    assert passed.activations[0] is x
    for z, h in zip(passed.preactivations, passed.activations[1:], strict=False):
        assert_close([h], [ACTIVATIONS[activation].function(z)])
    assert len(passed.preactivations) == len(passed.activations) == len(widths) - 1


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (4, 6, 5, 3, 2)])
@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy"])
def test_gradients_are_autograds(widths, activation, loss, device, generator):
    weights, biases = network(widths, generator, device=device)
    x = torch.randn(7, widths[0], dtype=double, device=device)
    y = torch.randn(7, 2, dtype=double, device=device)
    target, reference = {
        "squared_error": (y, lambda p, y: functional.mse_loss(p, y) * 2),  # a mean over 2 outputs
        "softmax_cross_entropy": ((y[:, 0] > 0).long(), functional.cross_entropy),
    }[loss]

    def loss_of(x, *parameters):
        h = x
        for k in range(len(weights)):
            h = ACTIVATIONS[activation].function(h) if k else h
            h = h @ parameters[2 * k].T + parameters[2 * k + 1]
        return reference(h, target)

    passed = bp.forward(x, weights, biases, activation)
    value, start = getattr(bp, loss)(passed.preactivations[-1], target)
    ours = bp.backward(passed, weights, start, activation)
    parameters = [p for pair in zip(weights, biases, strict=True) for p in pair]
    by_parameters = [g for pair in zip(ours.weights, ours.biases, strict=True) for g in pair]
    torch.testing.assert_close(value, loss_of(x, *parameters), rtol=1e-13, atol=0)
    assert_close([ours.delta @ weights[0], *by_parameters], autograd(loss_of, x, *parameters))


def test_a_gradient_by_hand():
    """One unit: z = 2 * 3 - 1 = 5, h = 5, prediction 4 h + 1 = 21, squared error against 20."""
    weights = [torch.tensor([[2.0]]), torch.tensor([[4.0]])]
    biases = [torch.tensor([-1.0]), torch.tensor([1.0])]
    passed = bp.forward(torch.tensor([[3.0]]), weights, biases)
    assert [z.item() for z in passed.preactivations] == [5, 21]
    value, start = bp.squared_error(passed.preactivations[-1], torch.tensor([[20.0]]))
    g = bp.backward(passed, weights, start)
    assert (value, start) == (1, 2)
    assert [v.item() for v in (*g.weights, *g.biases)] == [24, 10, 8, 2]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_follows_the_dtype_and_runs_under_compile_and_autocast(dtype, monkeypatch):
    weights, biases = network((3, 5, 2), dtype=dtype)
    x = torch.ones(4, 3, dtype=dtype)

    def gradients(x, weights, biases):
        passed = bp.forward(x, weights, biases, "tanh")
        return bp.backward(passed, weights, passed.preactivations[-1], "tanh")

    g = gradients(x, weights, biases)
    assert {t.dtype for t in (*g.weights, *g.biases)} == {dtype}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = gradients(x, weights, biases)
    for a, b in zip(rough.weights, g.weights, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=0.1, atol=0.1 * b.abs().max().item())
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    compiled = torch.compile(gradients, backend="eager", fullgraph=True)(x, weights, biases)
    for a, b in zip(compiled.weights, g.weights, strict=True):
        torch.testing.assert_close(a, b)


def test_softmax_cross_entropy_is_stable_and_a_proper_score():
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
    value, gradient = bp.softmax_cross_entropy(logits, torch.tensor([1, 0]))
    assert value == (2e4 + torch.tensor(3.0).log()) / 2
    torch.testing.assert_close(gradient, torch.tensor([[0.5, -0.5, 0], [-1 / 3, 1 / 6, 1 / 6]]))
    torch.testing.assert_close(gradient.sum(1), torch.zeros(2))


# Checkpointing


@pytest.mark.parametrize("segment", [1, 2, 3, 4, 5, 9])
def test_checkpointing_changes_no_gradient(segment, generator):
    weights, biases = network((3, 4, 6, 5, 4, 2), generator)
    x, y = torch.randn(7, 3, dtype=double), torch.randn(7, 2, dtype=double)

    def start(prediction):
        return bp.squared_error(prediction, y)[1]

    passed = bp.forward(x, weights, biases, "gelu")
    plain = bp.backward(passed, weights, start(passed.preactivations[-1]), "gelu")
    result = bp.checkpointed(x, weights, biases, start, segment, "gelu")
    for ours, theirs in zip(result.gradients, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(("depth", "segment", "kept"), [(8, 2, 7), (18, 3, 11), (32, 4, 15), (6, 6, 12), (6, 1, 7)])
def test_what_checkpointing_keeps(depth, segment, kept):
    """The formula M/s + 2s - 1; and for each (n, D) block, the numbers themselves."""
    weights, biases = network((5,) * (depth + 1))
    result = bp.checkpointed(torch.randn(3, 5, dtype=double), weights, biases, lambda p: p, segment, "tanh")
    assert kept == depth // segment + 2 * segment - 1
    assert result.saved == kept * 3 * 5


def test_checkpointing_keeps_no_more_alive_than_it_says():
    """Living tensors of the size of a layer, counted from outside: those in use for a moment do not grow with depth."""
    class Alive(TorchDispatchMode):
        now = peak = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape == (3, 5):
                Alive.now += 1
                Alive.peak = max(Alive.peak, Alive.now)
                weakref.finalize(result, self.gone)
            return result

        @staticmethod
        def gone():
            Alive.now -= 1

    peaks = []
    for depth, segment in ((32, 4), (72, 6), (72, 72)):
        weights, biases = network((5,) * (depth + 1))
        Alive.now = Alive.peak = 0
        gc.disable()  # only references count
        with Alive():
            result = bp.checkpointed(torch.randn(3, 5, dtype=double), weights, biases, lambda p: p, segment)
        gc.enable()
        peaks.append(Alive.peak - result.saved // 15)
    assert 0 <= min(peaks) <= max(peaks) <= min(peaks) + 1
    assert max(peaks) <= 7  # pieces of a relu's derivative


# The engine


def everything(x, y):
    """Every operation of a Variable, with constants on both sides and broadcasting in both directions."""
    row, column = x.sum(0), x.sum(1)
    terms = [
        x + y, x - y, x * y, x / (y * y + 1), x @ y.T, y.T @ x, -x, x.T @ y, x**3, 2.0 / (x * x + 1), 1.0 - x, 3.0 + x, x / 4.0,
        4.0 * x, x * row, column + row, row - x, (x * 0.1).exp(), (x * x + 1).log(), x.sin() * y.cos(), x.tanh(),
        x.relu() * y, column.sin() * column, x.sum() * y, x.mean() - y, CONSTANT + x, CONSTANT @ x.T, x @ CONSTANT.T,
        CONSTANT - x, CONSTANT * y, CONSTANT[0] * x, (x * x).sum(0) / CONSTANT, CONSTANT / (y * y + 2),
    ]  # fmt: skip
    return [(term.sin() * term).mean() for term in terms]


class Kept(torch.Tensor):
    """A tensor whose ``sum(dim)`` keeps the axis, as a Variable's does."""

    def sum(self, dim=None):
        return super().sum() if dim is None else super().sum(dim, keepdim=True)


CONSTANT = torch.linspace(-1, 2, 12, dtype=double).reshape(3, 4)
NUMBER = len(everything(torch.ones(3, 4, dtype=double).as_subclass(Kept), torch.ones(3, 4, dtype=double)))


@pytest.mark.parametrize("term", range(NUMBER))
def test_every_operation_is_autograds(term, generator):
    x, y = torch.randn(2, 3, 4, generator=generator, dtype=double)
    ours = [Variable(x), Variable(y)]
    result = everything(*ours)[term]
    result.backward()
    ours = [torch.zeros_like(v.value) if v.gradient is None else v.gradient for v in ours]

    def reference(x, y):
        return everything(x.as_subclass(Kept), y.as_subclass(Kept))[term].as_subclass(torch.Tensor)

    torch.testing.assert_close(result.value, reference(x, y), rtol=1e-14, atol=1e-15)
    assert_close(ours, autograd(reference, x, y))
    assert ours[0].abs().max() + ours[1].abs().max() > 1e-3


def test_the_mlp_of_the_engine_has_autograds_gradient(device, generator):
    weights, biases = network((4, 6, 3), generator, device=device)
    x = torch.randn(9, 4, dtype=double, device=device)
    labels = torch.arange(9, device=device) % 3
    passed = bp.forward(x, weights, biases, "tanh")
    hand = bp.backward(passed, weights, bp.softmax_cross_entropy(passed.preactivations[-1], labels)[1], "tanh")
    w, b = [Variable(p) for p in weights], [Variable(p) for p in biases]
    z = (x @ w[0].T + b[0]).tanh() @ w[1].T + b[1]
    observed = (z * functional.one_hot(labels, 3)).sum(1)
    (z.exp().sum(1).log() - observed).mean().backward()
    assert_close([v.gradient for v in w + b], hand.weights + hand.biases)


def test_at_a_kink_the_convention_is_pytorchs():
    x = torch.tensor([-1.0, 0.0, 1.0])
    v = Variable(x)
    v.relu().sum().backward()
    assert torch.equal(v.gradient, autograd(lambda x: x.relu().sum(), x)[0])
    assert v.gradient.tolist() == [0, 0, 1]
    weights, biases = [torch.eye(3), torch.ones(1, 3)], [torch.zeros(3), torch.zeros(1)]
    g = bp.backward(bp.forward(x[None], weights, biases), weights, torch.ones(1, 1))
    assert g.delta.tolist() == [[0, 0, 1]]


def test_shared_nodes_accumulate_and_each_edge_is_used_once():
    start = Variable(torch.tensor(1.0))
    v = start
    for _ in range(100):
        v = v + v
    v.backward()
    assert start.gradient == 2.0**100
    x = Variable(torch.tensor(3.0))
    (x * x * x + x).backward()
    assert x.gradient == 28


def test_deep_graphs_do_not_recurse():
    v = x = Variable(torch.tensor(1.0))
    for _ in range(5000):
        v = v * 1.0
    v.backward()
    assert x.gradient == 1


def test_the_graph_is_freed_and_a_later_backward_starts_anew():
    x = Variable(torch.tensor(2.0))
    middle = x * x
    result = middle + 1
    result.backward()
    assert (x.gradient, middle.gradient, result.gradient) == (4, 2 * 0 + 1, 1)
    with pytest.raises(RuntimeError, match="freed"):
        result.backward()
    with pytest.raises(RuntimeError, match="freed"):
        (middle * 2).backward()
    (x * 3).backward()
    assert x.gradient == 3  # replaced, not added to
    x.backward()
    assert x.gradient == 1


def test_constants_are_not_part_of_the_graph():
    x = Variable(torch.tensor([1.0, 2.0]))
    assert len((x * 3).edges) == len((x + torch.ones(2)).edges) == len((torch.ones(2) - x).edges) == 1
    assert len((x * x).edges) == 2


@first_jvp_warns
def test_forward_mode_runs_through_the_engine(generator):
    """Forward over reverse: the Hessian of a sum of log cosh."""
    def gradient(w):
        v = Variable(w)
        ((v.exp() + (-v).exp()) * 0.5).log().sum().backward()
        return v.gradient

    w = torch.randn(4, generator=generator, dtype=double)
    hessian = torch.func.jacfwd(gradient)(w)
    assert_close([gradient(w), hessian], [w.tanh(), torch.diag(1 - w.tanh() ** 2)])


# Counting


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (4, 6, 5, 3, 2)])
def test_the_count_is_the_closed_formula_and_pytorchs(widths, device):
    n, pairs = 7, list(itertools.pairwise(widths))
    total = sum(a * b for a, b in pairs)
    matrices = n * (2 * total - widths[0] * widths[1])
    weights, biases = network(widths, device=device)
    x = torch.randn(n, widths[0], dtype=double, device=device)
    with Operations() as first:
        passed = bp.forward(x, weights, biases)
    with Operations() as second:
        bp.backward(passed, weights, passed.preactivations[-1])
    assert first.multiplications == n * total
    assert first.additions == n * total  # the bias makes up for the one addition that a sum of k terms saves
    assert second.multiplications == matrices + n * sum(widths[1:-1])

    parts = [part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())][:-1]
    model = nn.Sequential(*parts).to(device, double)
    with Operations() as first, FlopCounterMode(display=False) as flops:
        y = model(x).sum()
    assert 2 * first.multiplications == flops.get_total_flops()
    with Operations() as second, FlopCounterMode(display=False) as flops:
        y.backward()
    assert second.multiplications == matrices + n * sum(widths[1:-1])
    assert flops.get_total_flops() == 2 * matrices


def test_scalar_operations_are_counted():
    x, y = torch.tensor(2.0), torch.tensor(3.0)
    with Operations() as count:
        (x * y + x) / y - 1.0 - (-x).exp()
        torch.ones(2, 5).sum(1)
        1.0 - x
    assert (count.multiplications, count.additions) == (2, 3 + 8 + 1)


# Numerical derivatives


def test_central_differences_are_second_order():
    x = torch.tensor([0.3, 1.1], dtype=double)
    errors = []
    for step in (1e-1, 1e-2, 1e-3):
        (g,) = bp.central_difference(lambda x: x.exp().sum(), x, step=step)
        errors.append((g - x.exp()).abs().max().item())
        assert errors[-1] == pytest.approx(step**2 / 6 * math.exp(1.1), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_default_step_is_near_the_best(dtype, scale, device):
    """Also far from 0, where a step that does not grow is lost in rounding."""
    x = torch.tensor([0.7, 2.0, 5.0], dtype=dtype, device=device) * scale
    (g,) = bp.central_difference(lambda x: (x / scale).sin().sum() * scale, x)
    worst = (g - (x / scale).cos()).abs().max().item()
    assert worst < 10 * torch.finfo(dtype).eps ** (2 / 3)


def test_several_inputs_of_any_shape_stay_as_they_are():
    x, y = torch.randn(2, 3, dtype=double), torch.tensor(2.0, dtype=double)
    before = x.clone()
    g, h = bp.central_difference(lambda x, y: (x * x).sum() * y, x, y)
    assert torch.equal(x, before)
    assert_close([g, h], [4 * x, (x * x).sum()], 1e-9)


def test_the_gradient_check_finds_errors(generator):
    x = torch.randn(5, generator=generator, dtype=double)

    def f(x):
        return (x**3).sum()

    assert bp.gradient_check(f, [3 * x**2], x) < 1e-8
    assert bp.gradient_check(f, [-3 * x**2], x) == pytest.approx(2, rel=1e-6)
    wrong = 3 * x**2
    wrong[2] *= 1.01
    assert bp.gradient_check(f, [wrong], x) > 1e-4
    assert bp.gradient_check(f, [2 * x**2], x) == pytest.approx(1 / 3, rel=1e-6)
    assert bp.gradient_check(lambda x: x.sum() * 0, [torch.zeros(5, dtype=double)], x) == 0


# Refusals


def test_bad_input_is_refused():
    weights, biases = network((3, 4, 2))
    x = torch.ones(5, 3, dtype=double)
    passed = bp.forward(x, weights, biases)
    prediction = passed.preactivations[-1]
    with refuses(ValueError, "activation must be one of sigmoid.*got 'cosine'"):
        bp.forward(x, weights, biases, "cosine")
    with refuses(ValueError, r"weights\[0\] must have shape \(outputs, 4\), got \(4, 3\)"):
        bp.forward(torch.ones(5, 4, dtype=double), weights, biases)
    with refuses(ValueError, r"biases\[1\] must have shape \(2,\), got \(4,\)"):
        bp.forward(x, weights, [biases[0], biases[0]])
    with refuses(ValueError, "at least one, got 0 and 0"):
        bp.forward(x, [], [])
    with refuses(ValueError, "as many, at least one, got 2 and 1"):
        bp.forward(x, weights, biases[:1])
    with refuses(ValueError, r"prediction's shape \(5, 2\), got \(5, 1\)"):
        bp.backward(passed, weights, prediction[:, :1])
    with refuses(ValueError, "weights must be the 2 of the forward pass, got 1"):
        bp.backward(passed, weights[:1], prediction)
    with refuses(ValueError, "segment must be at least 1, got 0"):
        bp.checkpointed(x, weights, biases, lambda p: p, 0)
    with refuses(ValueError, r"target must have the prediction's shape \(5, 2\), got \(5,\)"):
        bp.squared_error(prediction, prediction[:, 0])
    with refuses(ValueError, r"labels must have shape \(5,\), got \(4,\)"):
        bp.softmax_cross_entropy(prediction, torch.zeros(4, dtype=torch.long))
    with refuses(ValueError, "labels must be from 0 to 1, got 0 to 2"):
        bp.softmax_cross_entropy(prediction, torch.tensor([0, 1, 2, 0, 1]))
    with refuses(ValueError, "labels must be from 0 to 1, got -1 to 1"):
        bp.softmax_cross_entropy(prediction, torch.tensor([0, 1, -1, 0, 1]))
    with refuses(TypeError, "value must be a tensor of a floating dtype, got torch.int64"):
        Variable(torch.tensor(1))
    with refuses(TypeError, "value must be a tensor of a floating dtype, got float"):
        Variable(1.0)
    with refuses(ValueError, r"backward needs one entry, got shape \(2,\)"):
        (Variable(torch.ones(2)) * 2).backward()
    with refuses(ValueError, "step must be positive and finite, got 0"):
        bp.central_difference(lambda x: x.sum(), x, step=0.0)
    with refuses(TypeError, "inputs must be of a floating dtype, got torch.int64"):
        bp.central_difference(lambda x: x.sum(), torch.tensor([1]))
    with refuses(ValueError, r"gradients must have the shapes of the inputs, \[\(5, 3\)\], got \[\(3,\)\]"):
        bp.gradient_check(lambda x: x.sum(), [x[0]], x)
