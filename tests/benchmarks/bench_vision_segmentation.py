"""How a U-Net's training step grows with the number of pixels; prints ratios, asserts nothing.

Run: ``python tests/benchmarks/bench_vision_segmentation.py``
"""

import statistics
import time

import torch
from torch import Tensor
from torch.nn import functional

from deepstat import device, seeding
from deepstat.vision.unet import UNet

SIZES, RUNS = (32, 64, 128), 5


def seconds(model: UNet, x: Tensor, y: Tensor) -> float:
    """Median time of a forward and backward pass."""
    times = []
    for run in range(RUNS + 1):
        started = time.perf_counter()
        functional.cross_entropy(model(x), y).backward()
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        if run:  # the first one warms up
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    torch.set_num_threads(1)
    where = device.pick()
    seeding.seed_everything(0)
    found = {}
    for skips in (True, False):
        model = UNet(width=8, depth=3, padded=True, skips=skips).to(where)
        for size in SIZES:
            x = torch.randn(4, 1, size, size, device=where)
            found[skips, size] = seconds(model, x, (x[:, 0] > 0).long())
    for small, large in zip(SIZES, SIZES[1:], strict=False):
        ratio = found[True, large] / found[True, small]
        print(f"U-Net, step of {large}x{large} against {small}x{small} pixels (4 times as many): {ratio:.1f}")
    print(f"U-Net with skips against without, {SIZES[-1]} pixels: {found[True, SIZES[-1]] / found[False, SIZES[-1]]:.2f}")


if __name__ == "__main__":
    main()
