"""Our convolution and pooling against PyTorch's own on the same work; prints ratios, asserts nothing.

Run: ``python tests/benchmarks/bench_vision_convolution.py``
"""

from collections.abc import Callable

import torch
from timing import compare
from torch import Tensor
from torch.nn import functional

from deepstat import device, seeding
from deepstat.vision import convolution, pooling

BATCH, CHANNELS, SIDE, RUNS = 16, 8, 48, 20


def both_passes(layer: Callable[..., Tensor], *arguments: object) -> Callable[[], None]:
    """The layer's value and the gradients of its sum."""
    return lambda: layer(*arguments).sum().backward()


def main() -> None:
    torch.set_num_threads(1)
    where = device.pick()
    seeding.seed_everything(0)
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE, device=where, requires_grad=True)
    pairs = {}
    for k in (3, 7, 15):
        w = torch.randn(CHANNELS, CHANNELS, k, k, device=where, requires_grad=True)
        peer = both_passes(functional.conv2d, x, w)
        pairs[f"convolution {k} x {k}"] = (both_passes(convolution.conv2d, x, w), peer)
        pairs[f"the Fourier route {k} x {k}"] = (both_passes(convolution.fourier_conv2d, x, w), peer)
    for name in ("max_pool2d", "avg_pool2d"):
        ours, peer = getattr(pooling, name), getattr(functional, name)
        pairs[name] = (both_passes(ours, x, 2), both_passes(peer, x, 2))
    print(f"on {where.type}, {BATCH} images of {CHANNELS} x {SIDE} x {SIDE}, both passes")
    for name, works in pairs.items():
        ours, peer = compare(works, where, RUNS)
        print(f"{name}: ours {1e3 * ours:.1f} ms, PyTorch {1e3 * peer:.1f} ms, ratio {ours / peer:.1f}")


if __name__ == "__main__":
    main()
