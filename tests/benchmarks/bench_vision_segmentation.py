"""How a U-Net's training step grows with the number of pixels; prints ratios, asserts nothing.

Run: ``python tests/benchmarks/bench_vision_segmentation.py``
"""

from functools import partial

import torch
from timing import compare
from torch.nn import functional

from deepstat import device, seeding
from deepstat.vision.unet import UNet

SIZES, RUNS = (32, 64, 128), 5


def step(model: UNet, x: torch.Tensor) -> None:
    """Forward and backward pass."""
    functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()


def main() -> None:
    torch.set_num_threads(1)
    where = device.pick()
    seeding.seed_everything(0)
    works = {}
    for skips in (True, False):
        model = UNet(width=8, depth=3, padded=True, skips=skips).to(where)
        for size in SIZES:
            x = torch.randn(4, 1, size, size, device=where)
            works[skips, size] = partial(step, model, x)
    found = dict(zip(works, compare(list(works.values()), where, RUNS), strict=True))
    for small, large in zip(SIZES, SIZES[1:], strict=False):
        ratio = found[True, large] / found[True, small]
        print(f"U-Net, step of {large}x{large} against {small}x{small} pixels (4 times as many): {ratio:.1f}")
    print(f"U-Net with skips against without, {SIZES[-1]} pixels: {found[True, SIZES[-1]] / found[False, SIZES[-1]]:.2f}")


if __name__ == "__main__":
    main()
