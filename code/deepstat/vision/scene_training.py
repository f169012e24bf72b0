"""A fixed number of steps over scenes, whose boxes differ in number and so do not fit into one tensor.

Chapter: vision/detection.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat import training
from deepstat.foundations.optimizers import cosine


def minimize(
    model: nn.Module,
    loss: Callable[[Int64[Tensor, " batch"]], Float[Tensor, ""]],
    rows: int,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> float:
    r"""Minimize a loss that takes the numbers of the rows of a batch, by :func:`deepstat.training.fit`.

    AdamW, with weight decay 0.01, gradients clipped to norm 10, and a learning rate that rises linearly over the first
    tenth of the steps and then falls to zero along half a cosine.

    Args:
        model: the module whose parameters are trained, those that require a gradient.
        loss: maps the numbers of a batch's rows, on the CPU, to the mean loss; called while the model is in training
            mode.
        rows: number of rows; every row is dealt as often as any other, or once more.
        steps: number of steps, at least 1.
        batch: rows in a step.
        learning_rate: the largest one.
        seed: of the shuffling and of what ``loss`` draws.

    Returns:
        The mean loss over all steps. The model is left in evaluation mode.

    Raises:
        ValueError: if a number is out of range, or as :func:`deepstat.training.fit`.
    """
    for name, value in (("rows", rows), ("steps", steps), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    order = torch.arange(steps * batch) % rows
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01, fused=True)  # faster than a loop
    warm = max(1, steps // 10)

    def rate(step: int) -> float:
        return min((step + 1) / warm, cosine(step, steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    settings = {"optimizer": optimizer, "scheduler": schedule, "clip_norm": 10.0, "seed": seed, "progress": False}
    both = (order, order)
    history = training.fit(_Objective(model, loss), _itself, both, epochs=1, batch_size=batch, **settings)
    return float(history.table["train_loss"].iloc[-1])


class _Objective(nn.Module):
    """The loss as a module, so that the training loop finds the parameters."""

    def __init__(self, model: nn.Module, loss: Callable[[Tensor], Tensor]):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, rows: Tensor) -> Tensor:
        return self.loss(rows.cpu())


def _itself(value: Tensor, rows: Tensor) -> Tensor:
    return value
