"""Time and memory of a training step on samples of large graphs against the whole graph; asserts nothing.

Graphs with 10^5 and 10^6 nodes and ten directed edges a node, two layers with 32 features, 512 nodes in a batch.

Run: ``python tests/benchmarks/bench_sampling.py``
"""

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from deepstat import seeding
from deepstat.foundations.memory import saved_bytes
from deepstat.graphs import sampling
from deepstat.graphs.sampling import Block, BlockGCN, EdgeSampler, Operator

SIZES, FEATURES, BATCH, LAYERS, RUNS = (100_000, 1_000_000), 32, 512, 2, 5


def random_graph(nodes: int) -> Tensor:
    """Five undirected edges a node, each in both directions."""
    pairs = torch.randint(nodes, (2, 5 * nodes))
    pairs = pairs[:, pairs[0] != pairs[1]]
    key = (pairs.min(0).values * nodes + pairs.max(0).values).unique()
    pairs = torch.stack([key // nodes, key % nodes])
    return torch.cat([pairs, pairs.flip(0)], dim=1)


def samplers(op: Operator) -> dict[str, Callable[[], list[Block]]]:
    """What makes the blocks of one step; what is prepared once is not timed."""
    generator = torch.Generator().manual_seed(0)
    q, saint = sampling.column_probabilities(op), EdgeSampler(op, 2000)
    seeds = torch.randperm(op.nodes, generator=generator)[:BATCH]
    part = torch.arange(op.nodes, dtype=torch.int64)[:2000]  # a part of Cluster-GCN of this size, whatever its quality
    everyone = torch.arange(op.nodes)
    return {
        "whole graph": lambda: sampling.full_blocks(op, everyone, LAYERS),
        "whole neighbourhoods": lambda: sampling.full_blocks(op, seeds, LAYERS),
        "node": lambda: sampling.node_blocks(op, seeds, [5, 5], generator),
        "layer": lambda: sampling.layer_blocks(op, seeds, [2000, 2000], q, generator),
        "cluster": lambda: [sampling.induced_block(op, part)] * LAYERS,
        "saint": lambda: [saint.draw(generator)[0]] * LAYERS,
    }


def measure(draw: Callable[[], list[Block]], x: Tensor) -> tuple[int, float, float, float]:
    """Nodes read, MB kept for the backward pass, and the median seconds of drawing and of both passes."""
    model, drawing, passes = BlockGCN([FEATURES] * (LAYERS + 1)), [], []
    for _ in range(RUNS):
        started = time.perf_counter()
        blocks = draw()
        drawn = time.perf_counter()
        model(x[blocks[0].sources], blocks).square().mean().backward()
        drawing.append(drawn - started)
        passes.append(time.perf_counter() - drawn)
    kept = saved_bytes(lambda: model(x[blocks[0].sources], blocks), model.parameters())
    return len(blocks[0].sources), kept / 2**20, statistics.median(drawing), statistics.median(passes)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{LAYERS} layers, {FEATURES} features, batch {BATCH}; random graphs with ten directed edges a node")
    found: dict[str, list[tuple[int, float, float, float]]] = {}
    for nodes in SIZES:
        seeding.seed_everything(0)
        op = sampling.operator(random_graph(nodes), nodes)
        x = torch.randn(nodes, FEATURES)
        for name, draw in samplers(op).items():
            found.setdefault(name, []).append(measure(draw, x))
    for name, rows in found.items():
        for nodes, (read, kept, drawing, passes) in zip(SIZES, rows, strict=True):
            print(f"{name}, {nodes:,} nodes: reads {read:,}, keeps {kept:.1f} MiB, draws in {drawing:.4f} s, passes {passes:.4f} s")
        decades = math.log10(SIZES[-1] / SIZES[0])
        slopes = [math.log10(rows[-1][i] / rows[0][i]) / decades for i in (1, 2, 3)]
        print(f"{name}: memory, drawing and passes grow as nodes to the power {slopes[0]:.2f}, {slopes[1]:.2f}, {slopes[2]:.2f}")


if __name__ == "__main__":
    main()
