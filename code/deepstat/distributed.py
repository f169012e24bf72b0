"""Data parallelism on a few processes of one machine, small enough to look inside.

Chapter: foundations/pytorch. For real training start :func:`deepstat.training.fit` with ``torchrun``.
"""

import datetime
import inspect
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, distributed, multiprocessing, nn

from deepstat.batches import share


def launch(
    processes: int, *calls: tuple[Callable[..., Any], *tuple[Any, ...]], timeout: float = 120.0
) -> list[list[Any]]:
    """Call functions in several new processes that can talk to each other, and collect what they return.

    Each process makes the calls one after the other, ``worker(process, processes, *arguments)``, on the CPU with one
    thread, inside a process group of ``torch.distributed`` (backend gloo, over the loopback interface; they meet
    through a file, so no port is taken). Starting a process takes seconds, which is why it may make several calls.

    Args:
        processes: how many, at least 1.
        calls: ``(worker, *arguments)`` each. A worker is a function that new interpreters can import; they cannot
            import what a notebook defines. All processes get the same arguments; tensors and modules are copied, for
            each call anew.
        timeout: seconds after which the processes are ended.

    Returns:
        For each call what the processes returned, process 0 first.

    Raises:
        TypeError: if a worker is not a function.
        ValueError: if there is no call, a worker was not made by an importable module, ``processes`` is below 1, or
            ``timeout`` is not positive.
        RuntimeError: if a worker raised or died; names the first that did, with its traceback or exit code.
        TimeoutError: if the processes did not finish in time.
    """
    _check(processes, calls, timeout)
    names = ", ".join(worker.__name__ for worker, *_ in calls)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "calls").write_bytes(pickle.dumps([pickle.dumps(call) for call in calls]))
        context = multiprocessing.spawn(_process, (processes, name, timeout), processes, join=False, daemon=True)
        deadline = time.monotonic() + timeout
        try:
            while not context.join(timeout=max(deadline - time.monotonic(), 0.01)):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{processes} processes did not finish {names} in {timeout:g} s")
        except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException) as error:
            raise RuntimeError(f"{names} failed: {_cause(folder, context.processes) or error}") from error
        finally:
            for process in context.processes:
                process.kill()
                process.join()
            for file in filter(None, context.error_files):
                Path(file).unlink(missing_ok=True)
        by_process = [pickle.loads((folder / f"results {k}").read_bytes()) for k in range(processes)]
    return [list(results) for results in zip(*by_process, strict=True)]


def _cause(folder: Path, ended: list[BaseProcess]) -> str | None:
    """What went wrong first, in a process that died or raised: the others then fail because it is gone."""
    for k, process in enumerate(ended):
        if process.exitcode not in (0, 1, -signal.SIGTERM):  # 1 after an exception; SIGTERM is for the others
            return f"process {k} ended with exit code {process.exitcode}"
    errors = sorted(folder.glob("error *"))  # by the time in the name
    return errors[0].read_text(encoding="utf-8") if errors else None


def _check(processes: int, calls: tuple[tuple[Any, ...], ...], timeout: float) -> None:
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ValueError(f"processes must be an integer of at least 1, got {processes!r}")
    if not calls:
        raise ValueError("calls must be at least one, got none")
    for call in calls:
        worker = call[0] if isinstance(call, tuple) and call else call
        if not inspect.isroutine(worker) or worker is call:
            raise TypeError(f"calls must be tuples (function, *arguments), got {call!r}")
        if worker.__module__ == "__main__" or "<" in worker.__qualname__:
            raise ValueError(
                f"a worker must be a function that a new process can import from a file, got {worker.__qualname__} of "
                f"{worker.__module__}"
            )
    if not timeout > 0:
        raise ValueError(f"timeout must be positive, got {timeout}")


def _process(process: int, processes: int, name: str, timeout: float) -> None:
    """What a new process does; ``name`` is the folder that it shares with the others."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tells of the parent's death; what starts in the background ignores it
    folder = Path(name)
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.FileStore(str(folder / "store"), processes)
    limit = datetime.timedelta(seconds=timeout)
    distributed.init_process_group("gloo", store=store, rank=process, world_size=processes, timeout=limit)
    try:
        results = []
        for call in pickle.loads((folder / "calls").read_bytes()):
            worker, *arguments = pickle.loads(call)
            results.append(worker(process, processes, *arguments))
        (folder / f"results {process}").write_bytes(pickle.dumps(results))
        distributed.barrier()  # nobody leaves while another still needs it
    except Exception:
        error = folder / f"error {time.monotonic_ns():020} {process}"
        error.write_text(f"process {process} raised\n{traceback.format_exc()}", encoding="utf-8")
        raise
    finally:
        distributed.destroy_process_group()


def all_reduce(process: int, processes: int, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """A worker: the sum and the mean over the processes, of which each brings its own tensor.

    Args:
        process: this process.
        processes: how many there are.
        values: the tensors of all processes, of one shape; this process looks at its own only.

    Returns:
        The sum and the mean, which are then the same in all processes.
    """
    total = values[process].clone()
    distributed.all_reduce(total, distributed.ReduceOp.SUM)
    return total, total / processes


def train(
    process: int,
    processes: int,
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "n features"],
    y: Float[Tensor, "n *outputs"],
    batches: list[Int64[Tensor, " rows"]],
    learning_rate: float,
    weighted: bool = True,
) -> list[Tensor]:
    r"""A worker: gradient steps in which every process sees its share of each batch.

    Each process holds all parameters, computes the gradient of its share's mean loss, and takes part in one
    all-reduce a parameter; then all make the same step,
    :math:`\theta \leftarrow \theta - \eta R^{-1} \sum_r w_r \nabla L_r(\theta)`.

    Args:
        process: this process, :math:`r`.
        processes: how many there are, :math:`R`.
        model: started alike in all processes.
        loss: ``loss(model(x), y)``, the *mean* over the rows.
        x: all inputs, shape ``(n, features)``.
        y: all targets, shape ``(n, ...)``.
        batches: the rows of each step.
        learning_rate: :math:`\eta`.
        weighted: whether the shares count by their numbers of rows, :math:`w_r = m_r R / n` as in
            :func:`deepstat.batches.share`; if not, all count alike, :math:`w_r = 1`, which is wrong for ragged shares.

    Returns:
        The parameters after the last step.
    """
    for batch in batches:
        rows, weight = share(batch, process, processes)
        model.zero_grad()
        value = (weight if weighted else 1.0) * loss(model(x[rows]), y[rows])
        value.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                distributed.all_reduce(parameter.grad)  # the sum over processes
                parameter -= learning_rate * parameter.grad / processes
    return [parameter.detach() for parameter in model.parameters()]
