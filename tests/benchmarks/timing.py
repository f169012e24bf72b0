"""What the benchmarks share: ``from timing import compare``, beside the script that is run."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Work = Callable[[], object]


def seconds(work: Work, where: torch.device) -> float:
    """Time of one call, with what it left running on a GPU."""
    started = time.perf_counter()
    work()
    if where.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(works: Sequence[Work], where: torch.device, runs: int) -> tuple[float, ...]:
    """Median time of a call of each, taken in turns after two rounds to warm up."""
    for work in (*works, *works):
        seconds(work, where)
    times = [[seconds(work, where) for work in works] for _ in range(runs)]
    return tuple(statistics.median(column) for column in zip(*times, strict=True))
