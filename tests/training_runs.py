"""Small things to train: what the tests of ``fit`` and of its checkpoints import."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

# Read here and by the processes that tests start, so that all of them train the same thing.
PROGRAM = """
import math, os, sys
import torch
from torch import nn
from deepstat import seeding
from deepstat.training import fit

torch.set_num_threads(1)

def regression(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return x, (x[:, :1] * x[:, 1:2]).tanh() + 0.1 * torch.randn(rows, 1, generator=generator, dtype=torch.float64)

def network(random=False):
    seeding.seed_everything(1)
    extra = [nn.BatchNorm1d(8), nn.Dropout(0.3)] if random else []
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), *extra, nn.Linear(8, 1)).double()

def train_until(epochs, path, loss=nn.functional.mse_loss):
    '''Everything that has a state: dropout, running means, Adam's moments, a schedule, early stopping, shuffling.'''
    model = network(random=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=64)
    history = fit(model, loss, regression(90), epochs=epochs, optimizer=optimizer, scheduler=scheduler,
                  validation=regression(37, 1), patience=9, clip_norm=1.0, checkpoint=path)
    return model, history

def scenarios(folder):
    '''What several processes must do as one does: ragged batches, empty shares, all that looks at the whole.'''
    for name, rows, batch_size, options in [
        ("ragged", 90, 32, {}),
        ("one row left", 33, 32, {}),
        ("clipped", 90, 32, {"clip_norm": 0.05}),
        ("smaller than a process", 3, 1, {}),
        ("stopped early", 45, 8, {"validation": regression(7, 1), "patience": 2, "learning_rate": 0.1, "epochs": 30}),
        ("in two parts", 90, 32, {"checkpoint": os.path.join(folder, "run.pt")}),
    ]:
        for epochs in ([2, 4] if name == "in two parts" else [4]):
            model = network()
            settings = {"epochs": epochs, "batch_size": batch_size} | options
            history = fit(model, nn.functional.mse_loss, regression(rows), **settings)
        yield name, model.state_dict(), history.table.to_dict("list"), history.best_epoch
"""
exec(PROGRAM, shared := {})
regression, network, train_until, scenarios = (
    shared[name] for name in ("regression", "network", "train_until", "scenarios")
)
mse = nn.functional.mse_loss


def start(program, *arguments, launcher=()):
    """Run a program in a new interpreter, after PROGRAM."""
    file = Path(arguments[0]) / "program.py"
    file.write_text(PROGRAM + program)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if launcher:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # there may be fewer GPUs than processes
    return subprocess.run(
        [sys.executable, *launcher, str(file), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def assert_same(ours, theirs, **tolerance):
    """Two state dicts hold the same numbers: to the bit, unless a tolerance is given."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor.cpu(), theirs[name].cpu(), **(tolerance or {"rtol": 0, "atol": 0}))


class Scale(nn.Module):
    """The model w x, whose path under subgradient steps is known exactly."""

    def __init__(self, w=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return self.w * x


class Pairs(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]
