import copy
import math

import jaxtyping
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from deepstat.foundations import optimizers
from deepstat.foundations.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from deepstat.training import fit
from helpers import refuses

VARIANTS = [
    (SGD, {"lr": 0.05}),
    (SGD, {"lr": 0.05, "weight_decay": 0.1}),
    (SGD, {"lr": 0.02, "momentum": 0.9}),
    (SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.9, "weight_decay": 0.1}),
    (SGD, {"lr": 0.02, "momentum": 0.7, "dampening": 0.3}),
    (SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (Adagrad, {"lr": 0.1}),
    (Adagrad, {"lr": 0.1, "weight_decay": 0.1, "eps": 0.1}),
    (RMSprop, {"lr": 0.01}),
    (RMSprop, {"lr": 0.01, "alpha": 0.9, "weight_decay": 0.1, "eps": 0.1}),
    (Adam, {"lr": 0.01}),
    (Adam, {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1, "eps": 0.1}),
    (Adam, {"lr": 0.01, "betas": (0.0, 0.5), "amsgrad": True}),
    (Adam, {"lr": 0.01, "eps": 0.1, "amsgrad": True}),
    (AdamW, {"lr": 0.01}),
    (AdamW, {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.3, "amsgrad": True}),
]
every_variant = pytest.mark.parametrize(("kind", "settings"), VARIANTS, ids=lambda v: getattr(v, "__name__", str(v)))
ALGORITHMS = [SGD, Adagrad, RMSprop, Adam, AdamW]


def parameters(device="cpu", dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 2), (4,), ())
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype).to(device)) for s in shapes]


def give_gradients(ours, generator, t):
    """Noisy gradients of a function with its minimum at 1; the middle parameter is left out now and then."""
    for k, parameter in enumerate(ours):
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
        parameter.grad = None if k == 1 and t % 3 == 0 else (parameter.detach() - 1) ** 3 + noise


def walk(optimizer, ours, generator, steps, start=0):
    path = []
    for t in range(start, start + steps):
        give_gradients(ours, generator, t)
        optimizer.step()
        path.append(torch.cat([p.detach().reshape(-1).clone() for p in ours]))
    return torch.stack(path)


@pytest.mark.slow
@every_variant
def test_it_takes_pytorchs_steps_in_two_groups(kind, settings, device):
    theirs = getattr(torch.optim, kind.__name__)
    paths = []
    for make in (kind, theirs):
        ours = parameters(device)
        groups = [{"params": ours[:2]}, {"params": ours[2:], "lr": 3 * settings["lr"], "weight_decay": 0.2}]
        paths.append(walk(make(groups, **settings), ours, torch.Generator().manual_seed(0), 200))
    torch.testing.assert_close(*paths, rtol=1e-12, atol=1e-12)
    assert (paths[0][-1] - paths[0][0]).abs().min() > 1e-3


@every_variant
def test_a_saved_state_goes_on_as_if_nothing_had_happened(kind, settings, tmp_path):
    generator = torch.Generator().manual_seed(0)
    ours = parameters()
    optimizer = kind(ours, **settings)
    walk(optimizer, ours, generator, 20)
    torch.save([optimizer.state_dict(), [p.detach() for p in ours], generator.get_state()], tmp_path / "state.pt")
    uninterrupted = walk(optimizer, ours, generator, 20, start=20)

    state, values, random = torch.load(tmp_path / "state.pt", weights_only=True)
    ours = [nn.Parameter(value) for value in values]
    optimizer = kind(ours, lr=1.0)
    optimizer.load_state_dict(state)
    generator.set_state(random)
    resumed = walk(optimizer, ours, generator, 20, start=20)
    assert torch.equal(resumed, uninterrupted)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_defaults_are_pytorchs(kind):
    theirs = getattr(torch.optim, kind.__name__)(parameters()).defaults
    for name, value in kind(parameters()).defaults.items():
        assert theirs[name] == value, name


@pytest.mark.parametrize(
    ("kind", "settings", "buffers"),
    [(SGD, {}, 0), (SGD, {"momentum": 0.9}, 1), (Adagrad, {}, 1), (RMSprop, {}, 1), (Adam, {}, 2), (AdamW, {}, 2),
     (Adam, {"amsgrad": True}, 3)],
)  # fmt: skip
def test_memory_for_each_parameter(kind, settings, buffers):
    ours = parameters()
    optimizer = kind(ours, **settings)
    walk(optimizer, ours, torch.Generator().manual_seed(0), 2, start=1)
    kept = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert sum(v.numel() for v in kept) == buffers * sum(p.numel() for p in ours)


def test_the_first_steps_by_hand():
    def first(kind, g=0.5, **settings):
        parameter = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        kind([parameter], **settings).step()
        return parameter.item()

    assert first(SGD, lr=0.1, weight_decay=0.2) == pytest.approx(1 - 0.1 * (0.5 + 0.2), abs=1e-15)
    assert first(SGD, lr=0.1, momentum=0.9, dampening=0.9) == pytest.approx(1 - 0.1 * 0.5, abs=1e-15)
    assert first(SGD, lr=0.1, momentum=0.9, nesterov=True) == pytest.approx(1 - 0.1 * 1.9 * 0.5, abs=1e-15)
    assert first(Adagrad, lr=0.1, eps=0.1) == pytest.approx(1 - 0.1 * 0.5 / 0.6, abs=1e-15)
    assert first(RMSprop, lr=0.1, alpha=0.75, eps=0.1) == pytest.approx(1 - 0.1 * 0.5 / 0.35, abs=1e-15)
    assert first(Adam, lr=0.1, eps=0.1) == pytest.approx(1 - 0.1 * 0.5 / 0.6, abs=1e-15)
    assert first(AdamW, lr=0.1, eps=0.1, weight_decay=0.3) == pytest.approx(0.97 - 0.1 * 0.5 / 0.6, abs=1e-15)


def test_the_slides_averages_are_the_buffers():
    """m = beta m + (1 - beta) g with step alpha is the buffer with step alpha (1 - beta), and so for Nesterov."""
    alpha, beta = 0.3, 0.8
    for nesterov in (False, True):
        parameter = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
        optimizer = SGD([parameter], lr=alpha * (1 - beta), momentum=beta, nesterov=nesterov)
        phi, m = parameter.detach().clone(), torch.zeros(2, dtype=torch.float64)
        for _ in range(100):
            seen = phi - nesterov * alpha * beta * m
            torch.testing.assert_close(parameter.detach(), seen, rtol=0, atol=1e-13)
            parameter.grad = torch.sin(parameter.detach())
            optimizer.step()
            m = beta * m + (1 - beta) * torch.sin(seen)
            phi = phi - alpha * m


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALGORITHMS)
def test_it_trains_in_fit_with_a_schedule_and_from_a_checkpoint(kind, tmp_path, generator):
    x = torch.randn(60, 3, generator=generator)
    y = x @ torch.tensor([1.0, -2.0, 0.5])

    def run(epochs, checkpoint=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
        optimizer = kind(model.parameters(), lr=0.1)
        schedule = lr_scheduler.LambdaLR(optimizer, lambda t: optimizers.warmup(t, 10) * optimizers.cosine(t, 80))
        history = fit(model, nn.functional.mse_loss, (x, y), epochs=epochs, batch_size=20, optimizer=optimizer,
                      scheduler=schedule, checkpoint=checkpoint, progress=False)  # fmt: skip
        return history.table, copy.deepcopy(model.state_dict())

    table, whole = run(20)
    assert table["train_loss"].iloc[-1] < 0.5 * table["train_loss"].iloc[0]
    run(7, tmp_path / "c.pt")
    _, resumed = run(20, tmp_path / "c.pt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@every_variant
def test_other_dtypes_stay_what_they_are(kind, settings, device):
    for dtype in (torch.float32, torch.bfloat16):
        ours = parameters(device, dtype)
        path = walk(kind(ours, **settings), ours, torch.Generator().manual_seed(0), 30)
        assert path.dtype == dtype
        assert path.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALGORITHMS)
def test_it_works_under_torch_compile(kind, monkeypatch):
    """The eager backend traces and needs no C++ compiler; the run-time checks of shapes cannot be traced."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch._dynamo.reset()
    paths = []
    for compiled in (False, True):
        ours = parameters()
        optimizer = kind(ours)
        if compiled:
            optimizer.step = torch.compile(optimizer.step, backend="eager")
        paths.append(walk(optimizer, ours, torch.Generator().manual_seed(0), 4))
    torch.testing.assert_close(*paths, rtol=1e-12, atol=0)


def test_a_closure_is_called_with_gradients_on_and_its_value_returned():
    parameter = nn.Parameter(torch.tensor(3.0))
    optimizer = SGD([parameter], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = parameter**2
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9
    assert parameter.item() == 0


def test_a_step_keeps_the_gradient_and_a_rate_of_zero_the_parameter():
    for kind, settings in VARIANTS:
        ours = parameters()
        optimizer = kind(ours, **{**settings, "lr": 0.0})
        give_gradients(ours, torch.Generator().manual_seed(0), 1)
        before = [(p.detach().clone(), p.grad.clone()) for p in ours]
        optimizer.step()
        for p, (value, gradient) in zip(ours, before, strict=True):
            assert torch.equal(p.detach(), value)
            assert torch.equal(p.grad, gradient)


@pytest.mark.parametrize("kind", ALGORITHMS)
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("lr", -0.1, ValueError), ("lr", math.nan, ValueError), ("lr", math.inf, ValueError), ("lr", "0.1", TypeError),
     ("lr", torch.tensor(0.1), TypeError), ("lr", True, TypeError), ("weight_decay", -1.0, ValueError),
     ("weight_decay", math.nan, ValueError)],
)  # fmt: skip
def test_bad_settings_are_refused_in_every_algorithm_and_group(kind, name, value, error):
    with refuses(error, f"^{name} must be .*got"):
        kind(parameters(), **{name: value})
    with refuses(error, f"^{name} must be .*got"):
        kind([{"params": parameters(), name: value}])
    optimizer = kind(parameters())
    with refuses(error, f"^{name} must be .*got"):
        optimizer.add_param_group({"params": parameters(), name: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("kind", "settings", "error"),
    [(SGD, {"momentum": 1.0}, ValueError), (SGD, {"momentum": -0.1}, ValueError), (SGD, {"dampening": 1.1}, ValueError),
     (SGD, {"dampening": -0.1}, ValueError), (SGD, {"momentum": None}, TypeError), (Adagrad, {"eps": -1e-9}, ValueError),
     (RMSprop, {"alpha": 1.0}, ValueError), (RMSprop, {"alpha": -0.1}, ValueError), (RMSprop, {"eps": -1.0}, ValueError),
     (Adam, {"betas": (0.9, 1.0)}, ValueError), (Adam, {"betas": (-0.1, 0.9)}, ValueError),
     (Adam, {"betas": (0.9, math.nan)}, ValueError), (Adam, {"betas": 0.9}, TypeError),
     (Adam, {"betas": (0.9,)}, TypeError), (Adam, {"betas": ("a", 0.9)}, TypeError), (Adam, {"eps": -1.0}, ValueError),
     (AdamW, {"betas": (1.0, 0.9)}, ValueError)],
)  # fmt: skip
def test_bad_settings_of_one_algorithm(kind, settings, error):
    (name,) = settings
    with refuses(error, f"^{name} must be .*got"):
        kind(parameters(), **settings)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_momentum_without_dampening(settings):
    with refuses(ValueError, "nesterov needs momentum above 0 and dampening 0, got momentum"):
        SGD(parameters(), nesterov=True, **settings)


def test_parameters_and_gradients_that_it_does_not_know():
    with refuses(ValueError, "empty parameter list"):
        SGD([])
    with refuses(TypeError, "param_group must be a dict"):
        SGD(parameters()).add_param_group(parameters())
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with refuses(TypeError, "gradients must be dense and real, got torch.sparse_coo"):
        Adam(embedding.parameters()).step()
    wave = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    wave.abs().sum().backward()
    with refuses(TypeError, "gradients must be dense and real, got .*complex64"):
        Adam([wave]).step()
    unfinished = Optimizer(parameters(), lr=0.1)
    give_gradients(unfinished.param_groups[0]["params"], torch.Generator().manual_seed(0), 1)
    with refuses(NotImplementedError, "update"):
        unfinished.step()


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (lambda t: optimizers.step_decay(t, 7), "StepLR", {"step_size": 7}),
        (lambda t: optimizers.step_decay(t, 5, 0.5), "StepLR", {"step_size": 5, "gamma": 0.5}),
        (lambda t: optimizers.cosine(t, 60), "CosineAnnealingLR", {"T_max": 60}),
        (lambda t: optimizers.cosine(t, 60, 0.1), "CosineAnnealingLR", {"T_max": 60, "eta_min": 0.03}),
        (lambda t: optimizers.warmup(t, 20), "LinearLR", {"total_iters": 20}),
        (lambda t: optimizers.warmup(t, 20, 0.1), "LinearLR", {"total_iters": 20, "start_factor": 0.1}),
    ],
)
def test_schedules_are_pytorchs(ours, theirs, settings):
    rates = []
    for make in (lambda o: lr_scheduler.LambdaLR(o, ours), lambda o: getattr(lr_scheduler, theirs)(o, **settings)):
        optimizer = SGD(parameters(), lr=0.3)
        schedule = make(optimizer)
        path = []
        for _ in range(61):
            path.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        rates.append(path)
    assert rates[0] == pytest.approx(rates[1], rel=1e-12, abs=1e-15)


def test_schedules_end_where_they_should():
    assert [optimizers.step_decay(t, 2, 0.5) for t in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert optimizers.cosine(0, 10) == 1
    assert optimizers.cosine(5, 10, 0.2) == pytest.approx(0.6)
    assert optimizers.cosine(10, 10, 0.2) == optimizers.cosine(1000, 10, 0.2) == pytest.approx(0.2)
    assert optimizers.warmup(0, 10) == pytest.approx(1 / 3)
    assert optimizers.warmup(10, 10, 0.1) == optimizers.warmup(99, 10, 0.1) == 1


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: optimizers.step_decay(-1, 5), "t"),
        (lambda: optimizers.step_decay(1, 0), "every"),
        (lambda: optimizers.step_decay(1, 5, 0.0), "factor"),
        (lambda: optimizers.step_decay(1, 5, math.inf), "factor"),
        (lambda: optimizers.cosine(-1, 5), "t"),
        (lambda: optimizers.cosine(1, 0), "steps"),
        (lambda: optimizers.cosine(1, 5, 1.1), "floor"),
        (lambda: optimizers.warmup(1.5, 5), "t"),
        (lambda: optimizers.warmup(1, True), "steps"),
        (lambda: optimizers.warmup(1, 5, 0.0), "start"),
        (lambda: optimizers.warmup(1, 5, math.nan), "start"),
    ],
)
def test_bad_arguments_of_schedules(call, name):
    with refuses(ValueError, f"^{name} must be .*got"):
        call()
