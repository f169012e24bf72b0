import os
import pickle
import zipfile

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from deepstat import seeding
from deepstat.training import fit
from helpers import refuses
from training_runs import Pairs, Scale, assert_same, mse, network, regression, start, train_until


@pytest.fixture(scope="module")
def uninterrupted():
    return train_until(12, None)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [[12], [1, 12], [5, 6, 12], [12, 12]])
def test_training_in_parts_is_training_at_once(tmp_path, uninterrupted, parts):
    for epochs in parts:
        torch.manual_seed(epochs)
        model, history = train_until(epochs, tmp_path / "new folder" / "run.pt")
    assert_same(model.state_dict(), uninterrupted[0].state_dict())
    pandas.testing.assert_frame_equal(history.table, uninterrupted[1].table, rtol=0, atol=0)
    assert history.best_epoch == uninterrupted[1].best_epoch
    assert len(history.seconds) == len(history.table)
    assert os.listdir(tmp_path / "new folder") == ["run.pt"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders of two runs that were ended by SIGKILL, by the moment at which."""
    folder = tmp_path_factory.mktemp("killed")
    run = start(
        """
import signal
from deepstat import checkpoints

def die():
    os.kill(os.getpid(), signal.SIGKILL)

calls = 0
def loss(prediction, target):
    global calls
    calls += 1  # an epoch has five: three for training, two for validation
    if calls == 23 and moment == "between two steps":  # of epoch 5
        die()
    return nn.functional.mse_loss(prediction, target)

replace = os.replace
def half_written(partial, path):
    if calls == 20 and moment == "while the checkpoint is written":  # of epoch 4
        os.truncate(partial, os.path.getsize(partial) // 2)
        die()
    replace(partial, path)

checkpoints.os.replace = half_written
for moment in ("between two steps", "while the checkpoint is written"):
    child = os.fork()  # saves an interpreter's start; it has trained nothing yet
    if child == 0:
        train_until(12, os.path.join(sys.argv[1], moment, "run.pt"), loss)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, moment
""",
        folder,
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "epochs", "files"),
    [
        ("between two steps", 4, ["run.pt"]),
        ("while the checkpoint is written", 3, ["run.pt", "run.pt.partial"]),
    ],
)
def test_a_killed_run_goes_on_to_the_same_result(killed, uninterrupted, moment, epochs, files):
    path = killed / moment / "run.pt"
    assert sorted(os.listdir(path.parent)) == files
    assert len(torch.load(path, weights_only=True)["table"]) == epochs
    model, history = train_until(12, path)
    assert_same(model.state_dict(), uninterrupted[0].state_dict())
    pandas.testing.assert_frame_equal(history.table, uninterrupted[1].table, rtol=0, atol=0)
    assert os.listdir(path.parent) == ["run.pt"]


def test_a_finished_run_is_read_and_not_trained_again(tmp_path):
    def trained(loss):
        model = Scale()
        rows = torch.ones(3), torch.ones(3)
        fit(model, loss, rows, epochs=3, validation=rows, patience=1, checkpoint=tmp_path / "run.pt")
        return model.w.item()

    def never(prediction, target):
        raise AssertionError("trained again")

    assert trained(mse) == trained(never)


def test_a_state_in_another_type_than_the_parameters_is_not_rounded(tmp_path):
    class Exact(torch.optim.SGD):
        """Counts in float64 beside a float32 parameter, as master weights would."""

        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                state = self.state[parameter]
                state["sum"] = state.get("sum", torch.zeros((), dtype=torch.float64)) + 0.1
            return super().step(closure)

    for epochs in (1, 3):
        model = Scale()
        optimizer = Exact(model.parameters(), lr=0.1)
        fit(
            model,
            mse,
            (torch.ones(1), torch.ones(1)),
            epochs=epochs,
            optimizer=optimizer,
            checkpoint=tmp_path / "run.pt",
        )
    assert optimizer.state[model.w]["sum"].item() == 0.1 + 0.1 + 0.1


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "NAdam", "Adagrad"])
def test_every_optimizer_goes_on_as_if_nothing_had_happened(tmp_path, name):
    def trained(*epochs):
        for last in epochs:
            model = network()
            options = {"momentum": 0.9} if name == "SGD" else {}
            optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, **options)
            scheduler = torch.optim.lr_scheduler.SequentialLR(
                optimizer,
                [
                    torch.optim.lr_scheduler.LinearLR(optimizer),
                    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.9**t),
                ],
                [4],
            )
            path = tmp_path / f"{len(epochs)}.pt"
            fit(
                model,
                mse,
                regression(45),
                epochs=last,
                batch_size=16,
                optimizer=optimizer,
                scheduler=scheduler,
                checkpoint=path,
            )
        return model.state_dict()

    assert_same(trained(4), trained(2, 4))


def small(path, **changes):
    """A short run with a checkpoint, and what may be changed in it."""
    seeding.seed_everything(changes.pop("initial", 0))
    model = nn.Sequential(nn.Linear(4, changes.pop("width", 3)), nn.Tanh(), nn.LazyLinear(1)).double()
    model(torch.zeros(1, 4, dtype=torch.float64))
    rate, decay = changes.pop("rate", 0.1), changes.pop("decay", 0.9)
    optimizer = changes.pop("kind", torch.optim.SGD)(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay) if decay else None
    options = {"epochs": 2, "validation": regression(9, 1), "train": regression(12)} | changes
    return fit(model, mse, options.pop("train"), optimizer=optimizer, scheduler=scheduler, checkpoint=path, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 4}, r"model was model.0.weight \(3, 4\)"),
        ({"initial": 1}, "initial parameters was"),
        ({"train": regression(13)}, "train was 12 rows with checksum .*, is 13 rows"),
        ({"train": regression(12, 7)}, "train was 12 rows with checksum"),
        ({"train": Pairs(*regression(12))}, "train was 12 rows with checksum .*, is 12 rows of Pairs"),
        ({"validation": None}, "validation was 9 rows with checksum .*, is none"),
        ({"batch_size": 6}, "batch_size was 32, is 6"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"patience": 1}, "patience was None, is 1"),
        ({"clip_norm": 1.0}, "clip_norm was None, is 1.0"),
        ({"precision": "bf16"}, "precision was no, is bf16"),
        ({"rate": 0.2}, "optimizer was SGD"),
        ({"kind": torch.optim.Adam}, "optimizer was SGD .*, is Adam"),
        ({"decay": 0.8}, "scheduler was ExponentialLR"),
        ({"decay": None}, "scheduler was ExponentialLR .*, is None"),
        ({"epochs": 1}, "epochs must be at least the 2 that checkpoint .* has done, got 1"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, message):
    path = tmp_path / "run.pt"
    small(path)
    before = path.read_bytes()
    with refuses(ValueError, message):
        small(path, **changes)
    assert path.read_bytes() == before
    small(path)  # and still serves its own run


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_learning_rate_of_numpy_can_be_read_back(tmp_path):
    for epochs in (1, 2):
        small(tmp_path / "run.pt", rate=np.logspace(-2, -1, 2)[1], epochs=epochs)
    assert torch.load(tmp_path / "run.pt", weights_only=True)["optimizer"]["param_groups"][0]["initial_lr"] == 0.1


@pytest.mark.parametrize("record", ["data.pkl", "data/0", "data/1"])
def test_a_single_wrong_bit_is_found(tmp_path, record):
    path = tmp_path / "run.pt"
    small(path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/" + record))
        content = archive.read(name)
    whole = bytearray(path.read_bytes())
    whole[whole.index(content) + len(content) // 2] ^= 1
    path.write_bytes(whole)
    with refuses(ValueError, "run.pt is not a whole file written by fit"):
        small(path)


@pytest.mark.parametrize("damage", ["half", "empty", "text", "another dictionary", "a list", "a program", "a folder"])
def test_a_file_that_is_no_whole_checkpoint_is_refused(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.pt"
    small(path)
    whole = path.read_bytes()
    path.unlink()
    match damage:
        case "half":
            path.write_bytes(whole[: len(whole) // 2])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not a checkpoint")
        case "another dictionary":
            torch.save({"model": torch.zeros(1)}, path)
        case "a list":
            torch.save([1, 2], path)
        case "a program":
            path.write_bytes(pickle.dumps(Bomb(), protocol=2))
        case "a folder":
            path.mkdir()
    with refuses(ValueError, "checkpoint .*run.pt is not a whole file written by fit; delete it"):
        small(path)
    assert not (tmp_path / "exploded").exists()
