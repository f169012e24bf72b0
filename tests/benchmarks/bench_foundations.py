"""The book's readable code against PyTorch's own on the same work; prints ratios, asserts nothing.

Run: ``python tests/benchmarks/bench_foundations.py``
"""

from collections.abc import Callable

import torch
from timing import compare
from torch import Tensor, nn
from torch.nn import functional

from deepstat import device, seeding
from deepstat.foundations import backpropagation, losses, normalization, optimizers
from deepstat.foundations.mlp import MLP

WIDTHS, ROWS, RUNS = (64, 256, 256, 10), 256, 30


def steps_of(kind: type[torch.optim.Optimizer], where: torch.device) -> Callable[[], None]:
    """Adam's step with given gradients."""
    seeding.seed_everything(0)
    model = MLP(WIDTHS).to(where)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return kind(model.parameters()).step


def norm_of(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward pass of a normalization layer in training."""
    return lambda: layer(x).sum().backward()


def main() -> None:
    torch.set_num_threads(1)
    where = device.pick()
    seeding.seed_everything(0)
    x, y = torch.randn(ROWS, WIDTHS[0], device=where), torch.randint(10, (ROWS,), device=where)
    model = MLP(WIDTHS, "tanh").to(where)
    weights = [layer.weight.detach() for layer in model.layers]
    biases = [layer.bias.detach() for layer in model.layers]
    logits = torch.randn(ROWS, 10, device=where)
    wide = torch.randn(ROWS, 256, device=where, requires_grad=True)

    def by_hand() -> None:
        passed = backpropagation.forward(x, weights, biases, "tanh")
        _, start = backpropagation.softmax_cross_entropy(passed.preactivations[-1], y)
        backpropagation.backward(passed, weights, start, "tanh")

    def by_autograd() -> None:
        functional.cross_entropy(model(x), y).backward()

    pairs = {
        "Adam, a step": (steps_of(optimizers.Adam, where), steps_of(torch.optim.Adam, where)),
        "gradient of an MLP, by hand against autograd": (by_hand, by_autograd),
        "batch normalization, both passes": (
            norm_of(normalization.BatchNorm(256).to(where), wide), norm_of(nn.BatchNorm1d(256).to(where), wide)
        ),
        "categorical likelihood": (
            lambda: losses.categorical_nll(logits, y).mean(), lambda: functional.cross_entropy(logits, y)
        ),
    }  # fmt: skip
    print(f"on {where.type}")
    for name, works in pairs.items():
        ours, peer = compare(works, where, RUNS)
        print(f"{name}: ours {1e6 * ours:.0f} µs, PyTorch {1e6 * peer:.0f} µs, ratio {ours / peer:.2f}")


if __name__ == "__main__":
    main()
