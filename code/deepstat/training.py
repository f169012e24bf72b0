"""One training loop for every model, on a CPU, a GPU, or several processes.

Chapter: foundations/pytorch.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from deepstat import device, plotting, seeding
from deepstat.batches import Batch, as_dataset, deal
from deepstat.checkpoints import Run


@dataclass(frozen=True, repr=False)
class History:
    """What :func:`fit` did, epoch by epoch.

    Args:
        table: one row an epoch: ``epoch`` from 1; ``train_loss``, the mean over the training rows of the loss that each
            had when its batch came, so the parameters changed meanwhile; ``validation_loss``, where there is
            validation, at the epoch's end; ``learning_rate`` of the epoch's last step.
        seconds: how long each epoch took; not in the table, which is the same every time.
        best_epoch: with ``patience``, the epoch whose parameters were kept; else None.
    """

    table: pandas.DataFrame
    seconds: tuple[float, ...]
    best_epoch: int | None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw :func:`deepstat.plotting.loss_curves`."""
        return plotting.loss_curves(self, ax)

    def __repr__(self) -> str:
        return self.table.to_string(index=False)

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False)


def fit(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    train: tuple[Any, Any] | Dataset,
    *,
    epochs: int,
    batch_size: int = 32,
    optimizer: torch.optim.Optimizer | None = None,
    learning_rate: float | None = None,
    validation: tuple[Any, Any] | Dataset | None = None,
    scheduler: LRScheduler | None = None,
    patience: int | None = None,
    clip_norm: float | None = None,
    precision: str = "no",
    checkpoint: str | os.PathLike | None = None,
    seed: int = 0,
    collate: Callable[[list], Any] = default_collate,
    progress: bool = True,
) -> History:
    r"""Minimize the mean loss over the training rows by stochastic gradients.

    Each epoch deals the rows, shuffled, into batches :math:`B`, and each batch makes one step along the gradient of
    :math:`|B|^{-1} \sum_{i \in B} \ell(f_\theta(x_i), y_i)`.

    Started by ``torchrun`` or ``accelerate launch``, the same call runs in several processes. All deal the same batches
    from the same seed, each takes its share of every batch, and the shares' mean losses are weighted by their true
    numbers of rows. So the parameters are those of one process up to rounding, also after a ragged last batch. It does
    not hold for layers in which the rows of a batch meet (batch normalization) or that draw random numbers (dropout):
    every process has a stream of its own.

    Args:
        model: trained in place. It is left in evaluation mode, on the device that Accelerate picked: the GPU if there
            is one. A model from ``torch.compile`` will do.
        loss: ``loss(model(input), target)``, a scalar: the *mean* over the rows of the batch.
        train: ``(input, target)``, two tensors, or tuples or dicts of tensors, with the same number of rows each; or
            a ``Dataset`` of such pairs, one a row.
        epochs: passes over the data, at least 1.
        batch_size: rows in a step, over all processes together; the last batch of an epoch has what is left.
        optimizer: made from ``model.parameters()``; Adam with ``learning_rate`` if not given.
        learning_rate: of Adam; 1e-3 if not given.
        validation: rows to measure the loss on after each epoch, in the form of ``train``.
        scheduler: made from ``optimizer``, stepped after every *step*; an epoch takes ``ceil(rows / batch_size)``.
        patience: stop after this many epochs without a lower validation loss; in the end the parameters of the best
            epoch are put back, also if training was not stopped. Needs ``validation``.
        clip_norm: the greatest norm that a gradient may have; a longer one is scaled down to it.
        precision: ``"no"`` for the model's own, ``"bf16"`` or ``"fp16"`` (GPU only) for autocast.
        checkpoint: a file that is replaced after each epoch. If it is there when training starts, training goes on
            from it, to the same result as without the interruption; seed the model's initial parameters, because a
            run that began with others is refused. With the file of a finished run, nothing is left to do.
        seed: of the shuffling and of what the model draws while it trains. Random states outside are left alone.
        collate: makes a batch of a list of a ``Dataset``'s rows.
        progress: whether to show a bar on standard error while it trains; the environment variable ``TQDM_DISABLE=1``,
            which the book sets when it runs its pages, silences all bars.

    Returns:
        The losses of the epochs, as a table that plots.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range, there are no rows, their numbers differ, the loss is not a scalar,
            or the checkpoint is damaged or belongs to another run.
        FloatingPointError: if the loss or its gradient is infinite or not a number; names epoch and step, and leaves
            the parameters as they were before that step.
    """
    rows, held_out = as_dataset("train", train), as_dataset("validation", validation)
    settings = {"batch_size": batch_size, "patience": patience, "clip_norm": clip_norm}
    settings |= {"precision": precision, "seed": seed}
    _check(**settings, epochs=epochs, validation=validation)
    objective = _Objective(model, loss)
    optimizer = _check_optimizer(objective, optimizer, learning_rate, scheduler)
    steps = math.ceil(len(rows) / batch_size)

    with _fresh_accelerate(), seeding.isolated():
        accelerator = _accelerator(precision)
        prepared, stepper = accelerator.prepare(objective, optimizer)
        shares = partial(
            deal, batch_size=batch_size, collate=collate, accelerator=accelerator
        )
        run = Run(checkpoint, accelerator, objective, optimizer, scheduler)
        run.resume(epochs, settings, train=rows, validation=held_out)
        silent = {} if progress and accelerator.is_main_process else {"disable": True}
        bar = tqdm(total=epochs * steps, initial=len(run.table) * steps, leave=False, **silent)

        for epoch in range(len(run.table) + 1, epochs + 1):
            if run.best is not None and epoch > run.best_epoch + patience:
                break
            started, total = time.perf_counter(), 0.0
            order = _seed_epoch(seed, epoch, len(rows), accelerator)
            prepared.train()
            for step, batch in enumerate(shares(rows, order), start=1):
                stepper.zero_grad()
                value = batch.weight * prepared(batch.input, batch.target)
                accelerator.backward(value)
                norm = accelerator.clip_grad_norm_(
                    objective.parameters(), clip_norm or math.inf
                )
                mean = accelerator.reduce(value.detach(), "mean").item()
                _refuse_nonfinite(mean, norm, precision, f"epoch {epoch}, step {step}")
                rate = optimizer.param_groups[0]["lr"]
                stepper.step()
                if scheduler is not None and not accelerator.optimizer_step_was_skipped:
                    scheduler.step()
                total += batch.rows * mean
                bar.update()
            record = {"epoch": epoch, "train_loss": total / len(rows)}
            if held_out is not None:
                batches = shares(held_out, torch.arange(len(held_out)))
                validation_loss = _mean_loss(prepared, batches, accelerator)
                _refuse_nonfinite(validation_loss, 0.0, "no", f"validation {epoch}")
                record["validation_loss"] = validation_loss
            record["learning_rate"] = rate
            bar.set_postfix({k: f"{v:.4g}" for k, v in record.items() if "loss" in k})
            seconds = time.perf_counter() - started
            run.add(record, seconds, keep_best=patience is not None)
            run.save()

        bar.close()
        if run.best is not None:
            objective.load_state_dict(run.best)
    objective.eval()
    return History(pandas.DataFrame(run.table), tuple(run.seconds), run.best_epoch)


class _Objective(nn.Module):
    """The model and its loss as one module, for Accelerate to wrap, so that the reader's own model stays unwrapped."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor]):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module, got {type(model).__name__}"
            )
        if not callable(loss):
            raise TypeError(
                f"loss must be a function or module, got {type(loss).__name__}"
            )
        self.model, self.loss = model, loss

    def forward(self, input: Any, target: Any) -> Tensor:
        value = self.loss(self.model(input), target)
        if not isinstance(value, Tensor) or value.shape != ():
            got = (
                tuple(value.shape)
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise ValueError(
                f"loss must return a scalar tensor, the mean over the rows, got {got}"
            )
        return value


@torch.no_grad()
def _mean_loss(
    prepared: nn.Module, batches: Iterator[Batch], accelerator: Accelerator
) -> float:
    """The mean loss over the rows of the batches, in evaluation mode."""
    prepared.eval()
    total, rows = 0.0, 0
    for batch in batches:
        value = batch.weight * prepared(batch.input, batch.target)
        total += batch.rows * accelerator.reduce(value, "mean").item()
        rows += batch.rows
    return total / rows


def _seed_epoch(seed: int, epoch: int, n: int, accelerator: Accelerator) -> Tensor:
    """Seed what this process draws in an epoch, and shuffle the rows, in the same way in all processes.

    Seed, epoch and process determine all random numbers, so training that goes on from a checkpoint draws what it would
    have drawn, and no random state needs to be stored.
    """

    def derived(stream: int) -> int:
        return int(np.random.SeedSequence((seed, epoch, stream)).generate_state(1)[0])

    seeding.seed_everything(derived(1 + accelerator.process_index))
    return torch.randperm(n, generator=torch.Generator().manual_seed(derived(0)))


def _accelerator(precision: str) -> Accelerator:
    """Accelerate's idea of where we run, which must be the launcher's."""
    # Unless told that there is no GPU, Accelerate lets each process of torchrun train alone.
    no_gpu = device.pick().type == "cpu"
    accelerator = Accelerator(mixed_precision=precision, cpu=no_gpu)
    started = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != started:
        raise RuntimeError(
            f"{started} processes were started, but Accelerate trains in "
            f"{accelerator.num_processes}; call fit before anything else makes an Accelerator"
        )
    return accelerator


@contextlib.contextmanager
def _fresh_accelerate() -> Iterator[None]:
    """Let an ``Accelerator`` be made with any settings, and give Accelerate's global state back afterwards."""
    states = [AcceleratorState._shared_state, GradientState._shared_state]
    before = [dict(state) for state in states]
    try:
        for state in states:
            state.clear()
        yield
    finally:
        for state, content in zip(states, before, strict=True):
            state.clear()
            state.update(content)


def _check(
    epochs: int,
    batch_size: int,
    patience: int | None,
    clip_norm: float | None,
    precision: str,
    seed: int,
    validation: Any,
) -> None:
    """Refuse settings out of range."""
    integers = [("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)]
    integers += [("patience", patience, 1)] if patience is not None else []
    for name, value, least in integers:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if clip_norm is not None and not 0 < clip_norm < math.inf:
        raise ValueError(f"clip_norm must be positive and finite, got {clip_norm}")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation to measure, got none")
    if precision not in ("no", "bf16", "fp16"):
        raise ValueError(f"precision must be 'no', 'bf16' or 'fp16', got {precision!r}")
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if precision == "fp16" and not gpu:
        raise ValueError(
            "precision 'fp16' needs a GPU, got a CPU; 'bf16' works on both"
        )


def _check_optimizer(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    learning_rate: float | None,
    scheduler: LRScheduler | None,
) -> torch.optim.Optimizer:
    """The optimizer; refuse one of other parameters, and a scheduler of another optimizer."""
    known = {id(parameter) for parameter in objective.parameters()}
    if not known:
        raise ValueError("model must have parameters to train, got none")
    if optimizer is None:
        rate = 1e-3 if learning_rate is None else learning_rate
        if not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {rate}")
        optimizer = torch.optim.Adam(objective.parameters(), lr=rate)
    elif not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    elif learning_rate is not None:
        raise ValueError(
            "learning_rate is for the default optimizer, got an optimizer too; "
            "set the rate in that"
        )
    groups = optimizer.param_groups
    if any(
        id(parameter) not in known for group in groups for parameter in group["params"]
    ):
        raise ValueError(
            "optimizer must be made from the parameters of this model, got others"
        )
    if scheduler is None:
        return optimizer
    if not isinstance(scheduler, LRScheduler) or isinstance(
        scheduler, ReduceLROnPlateau
    ):
        raise TypeError(
            "scheduler must be a torch.optim.lr_scheduler.LRScheduler that needs no metric, "
            f"got {type(scheduler).__name__}"
        )
    if scheduler.optimizer is not optimizer:
        raise ValueError(
            "scheduler must be made from the optimizer that is passed, got another's"
        )
    return optimizer


def _refuse_nonfinite(
    loss: float, norm: Tensor | float, precision: str, where: str
) -> None:
    """Refuse a step from an infinite loss or gradient, or one that is not a number."""
    after = f"in {where}; the parameters are those before it"
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} {after}")
    if precision != "fp16" and not math.isfinite(
        norm
    ):  # fp16's scaler skips such steps
        raise FloatingPointError(f"the gradient has norm {norm} {after}")
