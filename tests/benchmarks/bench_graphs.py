"""Our layers on graphs against PyTorch Geometric's own, in time and memory, and how they grow; asserts nothing.

Run: ``python tests/benchmarks/bench_graphs.py``. It takes one to two minutes of one core.
"""

import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from timing import seconds
from torch import Tensor, nn
from torch_geometric import nn as peers

from deepstat import device, seeding
from deepstat.graphs.chebnet import ChebConv
from deepstat.graphs.gat import GATConv, GATv2Conv
from deepstat.graphs.gcn import GCNConv
from deepstat.graphs.graphsage import SAGEConv

NODES, EDGES, FEATURES, ROUNDS = 100_000, 1_000_000, 16, 3
SIZES = (500_000, 1_000_000, 2_000_000, 4_000_000)  # edges among the same nodes: more nodes would leave the cache

Make = Callable[[], nn.Module]
LAYERS: dict[str, tuple[Make, Make]] = {
    "GCN": (partial(GCNConv, FEATURES, FEATURES), partial(peers.GCNConv, FEATURES, FEATURES)),
    "SAGE, mean": (partial(SAGEConv, FEATURES, FEATURES), partial(peers.SAGEConv, FEATURES, FEATURES)),
    "SAGE, max": (
        partial(SAGEConv, FEATURES, FEATURES, "max"),
        partial(peers.SAGEConv, FEATURES, FEATURES, aggr="max"),
    ),
    "GAT": (partial(GATConv, FEATURES, FEATURES // 4, 4), partial(peers.GATConv, FEATURES, FEATURES // 4, 4)),
    "GATv2": (partial(GATv2Conv, FEATURES, FEATURES // 4, 4), partial(peers.GATv2Conv, FEATURES, FEATURES // 4, 4)),
    "Chebyshev, order 2": (partial(ChebConv, FEATURES, FEATURES, 2), partial(peers.ChebConv, FEATURES, FEATURES, 3)),
}


def inputs(nodes: int, edges: int, where: torch.device) -> tuple[Tensor, Tensor]:
    seeding.seed_everything(0)
    return torch.randn(nodes, FEATURES, device=where).requires_grad_(), torch.randint(nodes, (2, edges), device=where)


def step(layer: nn.Module, x: Tensor, edge_index: Tensor) -> None:
    """Forward and backward pass."""
    layer(x, edge_index).square().sum().backward()


def medians(works: Sequence[Callable[[], object]], where: torch.device) -> tuple[float, ...]:
    """Median time of a call of each, taken in turns after one round to warm up."""
    times = [[seconds(work, where) for work in works] for _ in range(ROUNDS + 1)]
    return tuple(statistics.median(column) for column in zip(*times[1:], strict=True))


def resident(which: str) -> int:
    """Bytes of memory of this process now (``VmRSS``) or at most so far (``VmHWM``), from Linux."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(which))


def peak(make: Make, where: torch.device) -> int:
    """Bytes that one step needs at its peak, beyond what was there before it."""
    layer = make().to(where)
    step(layer, *inputs(10, 20, where))  # what the first call of anything loads
    x, edge_index = inputs(NODES, EDGES, where)
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(layer, x, edge_index)
        return torch.cuda.max_memory_allocated() - before
    read, write = os.pipe()
    child = os.fork()  # a process's peak never falls, and a child starts with its own
    if not child:
        before = resident("VmRSS")
        step(layer, x, edge_index)
        os.write(write, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as answer:
        return int(answer.read())


def main() -> None:
    torch.set_num_threads(1)
    where = device.pick()
    memory = {name: [peak(make, where) for make in pair] for name, pair in LAYERS.items()}
    print(f"on {where.type}, {NODES:,} nodes, {EDGES:,} edges, {FEATURES} features, both passes")
    x, edge_index = inputs(NODES, EDGES, where)
    for name, pair in LAYERS.items():
        works = [partial(step, make().to(where), x, edge_index) for make in pair]
        ours, theirs = medians(works, where)
        mine, others = memory[name]
        print(
            f"{name}: ours {ours:.3f} s, PyTorch Geometric {theirs:.3f} s, ratio {ours / theirs:.2f}; "
            f"peak {mine / 2**20:.0f} and {others / 2**20:.0f} MiB, ratio {mine / others:.2f}",
            flush=True,
        )
    layer = LAYERS["GCN"][0]().to(where)
    works = [partial(step, layer, *inputs(NODES, edges, where)) for edges in SIZES]
    slope = np.polyfit(np.log(SIZES), np.log(medians(works, where)), 1)[0]
    print(f"GCN, {NODES:,} nodes, {SIZES[0]:,} to {SIZES[-1]:,} edges: time grows as edges to the power {slope:.2f}")


if __name__ == "__main__":
    main()
