import itertools
import math
import sys
from pathlib import Path

import jaxtyping
import pandas
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from deepstat import seeding, source
from deepstat.training import fit
from helpers import refuses
from training_runs import Pairs, Scale, assert_same, mse, network, regression, scenarios, start


def walk(steps=10.0, target=3.0, **options):
    """Training rows pull w up by the learning rate, 1, a step; validation wants it at the target."""
    model = Scale()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = options.pop("decay", None) and torch.optim.lr_scheduler.ExponentialLR(optimizer, options.pop("gamma"))
    history = fit(
        model, nn.functional.l1_loss, (torch.ones(1), torch.tensor([steps])),
        validation=(torch.ones(1), torch.tensor([target])), optimizer=optimizer, scheduler=scheduler, **options,
    )  # fmt: skip
    return model.w.item(), history


# --- the mathematics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.01)]
)
def test_full_batches_are_a_plain_loop(make):
    x, y = regression(50)
    ours, theirs = network(), network()
    history = fit(ours, mse, (x, y), epochs=20, batch_size=50, optimizer=make(ours.parameters()))
    optimizer, losses = make(theirs.parameters()), []
    for _ in range(20):
        optimizer.zero_grad()
        value = mse(theirs(x), y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert_same(ours.cpu().state_dict(), theirs.state_dict(), rtol=1e-9, atol=1e-12)
    assert history.table["train_loss"].tolist() == pytest.approx(losses, rel=1e-9)


def test_least_squares_is_reached():
    x, _ = regression(60)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]], dtype=torch.float64) + 0.7 + 0.1 * x[:, :1].sin()
    model = nn.Linear(4, 1).double()
    fit(model, mse, (x, y), epochs=150, batch_size=60, optimizer=torch.optim.SGD(model.parameters(), lr=0.3))
    design = torch.cat([x, torch.ones(60, 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(design, y).solution.flatten()
    torch.testing.assert_close(torch.cat([model.weight.flatten(), model.bias]).cpu(), solution, rtol=0, atol=1e-8)


def test_the_recorded_loss_is_the_mean_over_the_rows():
    x, y = regression(33)  # the last batch has one row, which must not weigh as much as 32
    model = network()
    expected = mse(model(x), y).item()
    still = torch.optim.SGD(model.parameters(), lr=1e-30)
    table = fit(model, mse, (x, y), epochs=1, optimizer=still, validation=(x, y)).table
    assert table.loc[0, "train_loss"] == pytest.approx(expected, rel=1e-12)
    assert table.loc[0, "validation_loss"] == pytest.approx(expected, rel=1e-12)


def test_every_epoch_deals_every_row_once_in_a_new_order_that_the_seed_decides():
    def orders(seed):
        dealt = []

        def loss(prediction, target):
            dealt.extend(target.tolist())
            return prediction.sum() * 0

        fit(Scale(), loss, (torch.zeros(50), torch.arange(50)), epochs=3, batch_size=7, seed=seed)
        return [tuple(dealt[50 * k : 50 * (k + 1)]) for k in range(3)]

    first = orders(0)
    assert all(sorted(order) == list(range(50)) for order in first)
    assert len(set(first)) == 3
    assert orders(0) == first
    assert not set(orders(1)) & set(first)


def test_a_long_gradient_is_clipped_and_a_short_one_is_not():
    def step(gradient):
        model = Scale()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        fit(
            model,
            lambda p, _: -p.mean(),
            (torch.full((2,), gradient), torch.zeros(2)),
            epochs=1,
            optimizer=optimizer,
            clip_norm=0.5,
        )
        return model.w.item()

    assert step(8.0) == pytest.approx(0.5, rel=1e-4)
    assert step(0.25) == 0.25


# --- validation, early stopping, schedule ----------------------------------------------------------------------------


def test_training_stops_when_patience_is_over_and_puts_the_best_parameters_back():
    w, history = walk(epochs=10, patience=2)
    assert history.table["validation_loss"].tolist() == [2, 1, 0, 1, 2]
    assert history.best_epoch == 3
    assert w == 3


def test_the_best_parameters_are_put_back_also_if_nothing_stopped_training():
    w, history = walk(epochs=4, patience=2)
    assert (w, history.best_epoch, len(history.table)) == (3, 3, 4)


def test_without_patience_the_last_parameters_stay():
    w, history = walk(epochs=6)
    assert (w, history.best_epoch, len(history.table)) == (6, None, 6)


def test_of_two_equal_epochs_the_first_is_kept():
    w, history = walk(target=2.5, epochs=9, patience=3)  # validation losses 1.5, 0.5, 0.5, 1.5, ...
    assert (w, history.best_epoch, len(history.table)) == (2, 2, 5)


def test_the_schedule_moves_with_every_step():
    x = torch.ones(6)
    model = Scale()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    table = fit(
        model, lambda p, _: -p.mean(), (x, x), epochs=2, batch_size=2, optimizer=optimizer, scheduler=scheduler
    ).table
    assert model.w.item() == sum(0.5**k for k in range(6))
    assert table["learning_rate"].tolist() == [0.5**2, 0.5**5]


def test_validation_is_in_evaluation_mode_and_training_is_not():
    modes = []

    class Spy(Scale):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    rows = torch.ones(3), torch.ones(3)
    model = Spy()
    fit(model, mse, rows, epochs=2, validation=rows)
    assert modes == [(True, True), (False, False)] * 2
    assert not model.training


# --- data ------------------------------------------------------------------------------------------------------------


def test_tensors_and_datasets_of_the_same_rows_train_alike():
    x, y = regression(45)
    results = []
    for data in [(x, y), TensorDataset(x, y), Pairs(x, y)]:
        model = network()
        fit(model, mse, data, epochs=2, batch_size=8, validation=data)
        results.append(model.state_dict())
    for other in results[1:]:
        assert_same(results[0], other)


def test_inputs_and_targets_may_be_nested():
    x, y = regression(20)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 1).double()

        def forward(self, parts):
            return self.linear(parts["all"]) + parts["first"]

    def survival_like(prediction, target):
        time, event = target
        assert time.shape == event.shape == prediction.shape
        return (event * (prediction - time) ** 2).mean()

    data = {"all": x, "first": x[:, :1]}, (y, (y > 0).double())
    assert len(fit(Two(), survival_like, data, epochs=2, batch_size=8).table) == 2


def test_rows_of_different_sizes_go_through_collate():
    sets = [(torch.ones(size), torch.tensor(float(size))) for size in range(1, 8)]

    class Sets(Dataset):
        def __len__(self):
            return len(sets)

        def __getitem__(self, index):
            return sets[index]

    def collate(rows):
        return nn.utils.rnn.pad_sequence([x for x, _ in rows], batch_first=True), torch.stack([y for _, y in rows])

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return self.w * x.sum(1)

    model = Sum()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    fit(model, mse, Sets(), epochs=25, batch_size=3, collate=collate, optimizer=optimizer)
    assert model.w.item() == pytest.approx(1.0, abs=1e-5)


def test_a_loss_may_be_a_module_with_buffers_and_learned_parameters():
    class Heteroscedastic(nn.Module):
        """Gaussian negative log-likelihood with a learned log variance: at its minimum the residual mean square."""

        def __init__(self):
            super().__init__()
            self.log_variance = nn.Parameter(torch.zeros((), dtype=torch.float64))
            self.register_buffer("factor", torch.tensor(0.5, dtype=torch.float64))

        def forward(self, prediction, target):
            square = (prediction - target).square().mean()
            return self.factor * (self.log_variance + square * (-self.log_variance).exp())

    loss, y = Heteroscedastic(), torch.tensor([-2.0, 2.0], dtype=torch.float64)
    model = Scale(0.0).double()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=1.0)
    fit(model, loss, (torch.zeros(2, dtype=torch.float64), y), epochs=40, optimizer=optimizer)
    assert loss.log_variance.exp().item() == pytest.approx(4.0, rel=1e-4)


# --- devices, precision, compilation, global state -------------------------------------------------------------------


def test_the_model_is_left_where_accelerate_trains_it():
    model = network()
    fit(model, mse, regression(10), epochs=1)
    assert next(model.parameters()).device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_fits_of_different_precision_follow_each_other_and_leave_no_trace():
    tables = {}
    before = dict(AcceleratorState._shared_state)
    for precision in ("no", "bf16", "no"):
        model = network().float()
        x, y = (t.float() for t in regression(64))
        tables.setdefault(precision, fit(model, mse, (x, y), epochs=3, precision=precision, learning_rate=0.01).table)
        assert model(x[:2].to(next(model.parameters()).device)).dtype == torch.float32
        assert "forward" not in vars(model)
        assert not [name for name in vars(model) if "accelerate" in name]
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert dict(AcceleratorState._shared_state) == before
    exact, rounded = tables["no"]["train_loss"], tables["bf16"]["train_loss"]
    assert rounded.tolist() == pytest.approx(exact.tolist(), rel=0.02)  # bfloat16 has 8 bits
    assert rounded.tolist() != exact.tolist()


def test_an_accelerator_of_the_reader_is_left_alone():
    AcceleratorState._reset_state()
    try:
        mine = Accelerator(mixed_precision="bf16")
        model = network().float()
        fit(model, mse, tuple(t.float() for t in regression(8)), epochs=1)
        assert mine.mixed_precision == "bf16"
        assert Accelerator(mixed_precision="bf16").state.mixed_precision == "bf16"
    finally:
        AcceleratorState._reset_state()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 needs a GPU")
def test_fp16_trains_on_a_gpu():
    model = network().float()
    table = fit(
        model, mse, tuple(t.float() for t in regression(64)), epochs=20, precision="fp16", learning_rate=0.01
    ).table
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0]


def test_a_compiled_model_trains_like_its_original():
    original, model = network(), network()
    compiled = torch.compile(model, backend="eager")
    for trained in (original, compiled):
        fit(trained, mse, regression(20), epochs=2, batch_size=8, validation=regression(5), patience=1)
    assert_same(original.state_dict(), model.state_dict(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("draws", [lambda: torch.rand(3).tolist(), lambda: __import__("random").random()])
def test_random_states_outside_neither_change_nor_matter(draws, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # beartype draws from Python's random numbers

    def trained():
        model = network(random=True)
        torch.manual_seed(next(outside))
        fit(model, mse, regression(20), epochs=2)
        return model.state_dict()

    outside = itertools.count()
    assert_same(trained(), trained())
    seeding.seed_everything(5)
    expected = draws()
    seeding.seed_everything(5)
    fit(Scale(), mse, (torch.ones(4), torch.ones(4)), epochs=1)
    assert draws() == expected


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_the_history_is_a_table_that_plots_and_is_the_same_every_time():
    (_, first), (_, second) = walk(epochs=3), walk(epochs=3)
    assert list(first.table.columns) == ["epoch", "train_loss", "validation_loss", "learning_rate"]
    assert first.table["epoch"].tolist() == [1, 2, 3]
    pandas.testing.assert_frame_equal(first.table, second.table)
    assert repr(first) == repr(second)
    assert first._repr_html_() == second._repr_html_()
    assert len(first.seconds) == 3
    assert min(first.seconds) > 0
    ax = first.plot()
    assert ax.lines[0].get_ydata().tolist() == first.table["train_loss"].tolist()
    assert first.plot(ax) is ax
    assert "validation_loss" not in fit(Scale(), mse, (torch.ones(2), torch.ones(2)), epochs=1).table


@pytest.mark.slow
def test_the_bar_shows_the_losses_unless_it_is_switched_off(capfd, monkeypatch, tmp_path):
    walk(epochs=2, progress=False)
    assert capfd.readouterr() == ("", "")
    walk(epochs=2)
    out, err = capfd.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "validation_loss" in err
    program = "model = network()\nfit(model, nn.functional.mse_loss, regression(8), epochs=1)\n"
    monkeypatch.setenv("TQDM_DISABLE", "1")  # read when tqdm is imported
    run = start(program, tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_loop_fits_a_page():
    lines = repr(source.show(fit)).splitlines()
    body = lines[lines.index(") -> History:") + 1 :]
    assert len(body) <= 70
    assert max(map(len, lines)) <= 120


# --- several processes -----------------------------------------------------------------------------------------------


PAGE = Path(__file__).parents[1] / "chapters/foundations/pytorch.md"
TRAIN_PY = PAGE.read_text(encoding="utf-8").split(":name: train-py\n")[1].split("```")[0]


@pytest.mark.slow
def test_two_processes_train_as_one_and_so_does_the_program_of_the_page(tmp_path, monkeypatch):
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    run = start(
        "rank = os.environ['RANK']\n"
        "torch.save(list(scenarios(sys.argv[1])), os.path.join(sys.argv[1], f'{rank}.pt'))\n"
        "assert torch.distributed.get_world_size() == 2\n"
        "train_until(1, None)\n"  # batch normalization and dropout run too, if not as one process would
        "sys.argv[1] = os.path.join(sys.argv[1], 'page.pt')\n" + TRAIN_PY,
        tmp_path / "two",
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    )
    assert run.returncode == 0, run.stderr
    one = list(scenarios(tmp_path / "one"))
    assert len(one) == 6
    for rank in (0, 1):
        two = torch.load(tmp_path / "two" / f"{rank}.pt", weights_only=True)
        for (name, state, table, best), (their_name, their_state, their_table, their_best) in zip(
            one, two, strict=True
        ):
            assert name == their_name
            assert_same(state, their_state, rtol=1e-9, atol=1e-12)  # float64: sums in another order
            assert table.keys() == their_table.keys()
            for column in table:
                assert their_table[column] == pytest.approx(table[column], rel=1e-9), (name, column)
            assert best == their_best
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "one/page.pt")])
    exec(TRAIN_PY, {})
    ours, theirs = (torch.load(tmp_path / number / "page.pt", weights_only=True) for number in ("one", "two"))
    assert len(ours["table"]) == len(theirs["table"]) == 20
    assert_same(ours["objective"], theirs["objective"], rtol=0, atol=1e-4)  # float32, perhaps on a GPU
    stopped = next(result for result in one if result[0] == "stopped early")
    assert len(stopped[2]["epoch"]) < 30  # or the scenario would not test what it says


def test_processes_that_would_train_alone_are_stopped(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refuses(RuntimeError, "2 processes were started, but Accelerate trains in 1"):
        fit(Scale(), mse, (torch.ones(2), torch.ones(2)), epochs=1)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_refused_before_it_is_made(kind):
    calls = []
    model = Scale(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def loss(prediction, target):
        calls.append(model.w.item())
        if len(calls) < 6:
            return prediction.mean()
        if kind == "loss":
            return (prediction - prediction - 1).log().mean()
        return (prediction - prediction.detach()).sqrt().mean()  # zero, with the slope of a square root there

    with refuses(FloatingPointError, f"the {kind}.* (nan|inf) in epoch 2, step 2; the parameters are those before it"):
        fit(model, loss, (torch.ones(8), torch.ones(8)), epochs=3, batch_size=2, optimizer=optimizer)
    assert model.w.item() == calls[-1]
    assert math.isfinite(model.w.item())


def test_a_validation_loss_that_is_not_finite_is_refused():
    with refuses(FloatingPointError, "the loss is nan in validation 1"):
        fit(
            Scale(),
            mse,
            (torch.ones(2), torch.ones(2)),
            epochs=2,
            validation=(torch.ones(2), torch.full((2,), torch.nan)),
        )


ROWS = torch.ones(4), torch.ones(4)
FOREIGN = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(
    ("changes", "exception", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be an integer, got float"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"patience": 2, "validation": None}, ValueError, "patience needs validation"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be positive and finite, got -1.0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate must be positive and finite, got nan"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm must be positive and finite, got 0.0"),
        ({"clip_norm": math.inf}, ValueError, "clip_norm must be positive and finite, got inf"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"precision": "float16"}, ValueError, "precision must be 'no', 'bf16' or 'fp16', got 'float16'"),
        (
            {"train": (torch.ones(4), torch.ones(3))},
            ValueError,
            r"train must be .* same number of rows, got \[4, 3\] rows",
        ),
        ({"train": (torch.ones(4),)}, ValueError, r"train must be \(input, target\)"),
        ({"train": (torch.ones(()), torch.ones(()))}, ValueError, "train must have at least one row, got none"),
        ({"train": (torch.ones(0), torch.ones(0))}, ValueError, "train must have at least one row, got none"),
        ({"validation": (torch.ones(0), torch.ones(0))}, ValueError, "validation must have at least one row, got none"),
        ({"validation": (torch.ones(2), torch.ones(1))}, ValueError, "validation must be"),
        ({"train": Pairs([], [])}, ValueError, "train must have at least one row, got none"),
        ({"train": (torch.ones(4).numpy(), torch.ones(4))}, TypeError, "train must hold tensors"),
        ({"train": DataLoader(TensorDataset(*ROWS))}, TypeError, "train must be .* got DataLoader .* pass its dataset"),
        ({"train": torch.ones(4)}, TypeError, "train must be .* got Tensor"),
        ({"train": list(ROWS)}, TypeError, "train must be .* got list"),
        (
            {"train": Pairs(*ROWS), "collate": lambda rows: torch.ones(4)},
            ValueError,
            r"give \(input, target\) pairs, got Tensor",
        ),
        ({"loss": nn.MSELoss(reduction="none")}, ValueError, r"loss must return a scalar .* got \(4,\)"),
        ({"loss": lambda p, y: 1.0}, ValueError, "loss must return a scalar tensor.* got float"),
        ({"loss": "mse"}, TypeError, "loss must be a function or module, got str"),
        ({"model": lambda x: x}, TypeError, "model must be a torch.nn.Module, got function"),
        ({"model": nn.Identity()}, ValueError, "model must have parameters to train, got none"),
        ({"optimizer": FOREIGN}, ValueError, "optimizer must be made from the parameters of this model"),
        ({"optimizer": FOREIGN, "learning_rate": 0.1}, ValueError, "learning_rate is for the default optimizer"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
        (
            {"scheduler": torch.optim.lr_scheduler.StepLR(FOREIGN, 1)},
            ValueError,
            "scheduler must be made from the optimizer",
        ),
        ({"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(FOREIGN)}, TypeError, "got ReduceLROnPlateau"),
        ({"scheduler": 3}, TypeError, "scheduler must be .* got int"),
    ],
)
def test_bad_input_is_refused(changes, exception, message):
    good = {"model": Scale(), "loss": mse, "train": ROWS, "epochs": 1, "validation": ROWS}
    with refuses(exception, message):
        fit(**(good | changes))


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_refused():
    with refuses(ValueError, "precision 'fp16' needs a GPU, got a CPU; 'bf16' works on both"):
        fit(Scale(), mse, ROWS, epochs=1, precision="fp16")
