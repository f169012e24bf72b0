"""How far training has come, kept in a file from which it goes on as if nothing had happened.

Chapter: foundations/pytorch.
"""

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from deepstat.batches import Rows


class Run:
    """How far training has come, in memory and, if there is a path, in a checkpoint.

    The checkpoint holds tensors, Python's numbers and strings only, so that ``torch.load`` reads it with
    ``weights_only=True``, which calls no function that a file names.

    Args:
        path: the checkpoint's file; None for no checkpoint.
        accelerator: knows the processes, of which the first writes, and the gradient scaler.
        objective: the module that is trained.
        optimizer: of its parameters.
        scheduler: of the optimizer, or None.
    """

    def __init__(
        self, path: str | os.PathLike | None, accelerator: Accelerator, objective: nn.Module,
        optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None,
    ):  # fmt: skip
        self.path = None if path is None else Path(path)
        self.accelerator, self.settings = accelerator, {}
        parts = {"objective": objective, "optimizer": optimizer, "scheduler": scheduler, "scaler": accelerator.scaler}
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.table: list[dict[str, int | float]] = []
        self.seconds: list[float] = []
        self.best: dict[str, Tensor] | None = None  # the parameters of the best epoch

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the lowest validation loss, if its parameters were kept."""
        if self.best is None:
            return None
        return min(self.table, key=lambda record: record["validation_loss"])["epoch"]

    def add(self, record: dict[str, int | float], seconds: float, keep_best: bool) -> None:
        """Enter an epoch; with ``keep_best`` copy the parameters if its validation loss is the lowest so far."""
        earlier = [past["validation_loss"] for past in self.table] if keep_best else []
        self.table.append(record)
        self.seconds.append(seconds)
        if keep_best and record["validation_loss"] < min(earlier, default=math.inf):
            state = self.parts["objective"].state_dict()
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def save(self) -> None:
        """Replace the checkpoint in one step: whoever is killed meanwhile leaves the former one."""
        if self.path is None or not self.accelerator.is_main_process:
            return
        whole = {"settings": self.settings, "table": self.table, "seconds": self.seconds, "best": self.best}
        whole |= {name: part.state_dict() for name, part in self.parts.items()}
        partial = self.path.with_name(self.path.name + ".partial")
        with open(partial, "wb") as file:
            torch.save(_plain(whole), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)

    def resume(self, epochs: int, settings: dict[str, Any], **data: Dataset | None) -> None:
        """Go on from the checkpoint, if there is one, in all processes alike.

        Args:
            epochs: passes over the data that are wanted in all.
            settings: what must be the same in both runs.
            data: data sets that must be the same, by name.

        Raises:
            ValueError: if the checkpoint is damaged, belongs to another run, or has done more epochs.
        """
        if self.path is None:
            return
        self.settings = {name: str(value) for name, value in settings.items()}
        self.settings |= {name: _describe(rows) for name, rows in data.items()}
        self.settings |= _describe_parts(self.parts)
        found = None
        if self.accelerator.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            found = _read(self.path, self.settings, epochs) if self.path.exists() else None
        found = broadcast_object_list([found])[0]
        if found is not None:
            for name, part in self.parts.items():
                part.load_state_dict(found[name])
            _keep_types(self.parts["optimizer"], found["optimizer"])
            self.table, self.seconds, self.best = found["table"], found["seconds"], found["best"]


def _keep_types(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Put the saved state back as it was: ``load_state_dict`` rounds it to the type of the parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in saved["state"].items():
        state = optimizer.state[parameters[index]]
        state.update({k: v.to(state[k].device) for k, v in values.items() if isinstance(v, Tensor)})


def _plain(value: Any) -> Any:
    """The same with NumPy's numbers, such as a learning rate from ``np.logspace``, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _plain(inner) for key, inner in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _read(path: Path, settings: dict[str, str], epochs: int) -> dict[str, Any]:
    """The checkpoint, if it is whole and of this run."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch.load does not look at the checksums
                raise zipfile.BadZipFile("a checksum is wrong")
        found = torch.load(path, map_location="cpu", weights_only=True)
        theirs, table = found["settings"], found["table"]
    except Exception as error:  # what a damaged file raises depends on the place
        raise ValueError(f"checkpoint {path} is not a whole file written by fit; delete it to start anew") from error
    differences = [
        f"{name} was {theirs.get(name)}, is {settings.get(name)}"
        for name in sorted(settings.keys() | theirs.keys())
        if theirs.get(name) != settings.get(name)
    ]
    if differences:
        raise ValueError(f"checkpoint {path} belongs to another run ({'; '.join(differences)}); use another file name")
    if len(table) > epochs:
        raise ValueError(f"epochs must be at least the {len(table)} that checkpoint {path} has done, got {epochs}")
    return found


def _checksum(tensors: list[Tensor]) -> str:
    total = 0
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous().reshape(-1)
        total = zlib.crc32(values.view(torch.uint8).numpy(), total)
    return f"{total:08x}"


def _describe(rows: Dataset | None) -> str:
    """The data in a few words that other data would not share."""
    if rows is None:
        return "none"
    if not isinstance(rows, Rows):
        return f"{len(rows)} rows of {type(rows).__name__}"
    return f"{len(rows)} rows with checksum {_checksum(rows.tensors())}"


def _describe_parts(parts: dict[str, Any]) -> dict[str, str]:
    """Model, optimizer and scheduler as they are before the first step, in words that others would not share."""
    state = parts["objective"].state_dict()
    shapes = [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in state.items()]
    words = {"model": ", ".join(shapes), "initial parameters": _checksum(list(state.values()))}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in parts["optimizer"].param_groups]
    words["optimizer"] = f"{type(parts['optimizer']).__name__} {groups}"
    if "scheduler" in parts:
        words["scheduler"] = f"{type(parts['scheduler']).__name__} {parts['scheduler'].state_dict()}"
    return words
