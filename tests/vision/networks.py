"""What the networks of several chapters must pass."""

import jaxtyping
import torch
from torch import nn
from torch.nn.functional import cross_entropy


def runs_in(model: nn.Module, x: torch.Tensor, classes: int, device: torch.device) -> None:
    """Float32 and bfloat16, in evaluation mode; finite logits of the input's dtype."""
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad():
            y = model.to(device, dtype).eval()(x.to(device, dtype))
        assert y.shape == (len(x), classes)
        assert y.dtype == dtype
        assert y.isfinite().all()
    model.to("cpu", torch.float32)


def gradients_reach_every_parameter(model: nn.Module, loss: torch.Tensor) -> None:
    model.zero_grad()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def overfits(model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss=cross_entropy, steps=60, rate=1e-3) -> None:
    """From the first loss to a small part of it on one batch, dropout off."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    losses = fitted(model, x, y, loss, steps, rate)
    assert losses[-1] < 0.1 * losses[0], (losses[0], losses[-1])


def fitted(model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss=cross_entropy, steps=150, rate=1e-2) -> list[float]:
    """The losses of Adam's steps on one batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    losses = []
    for _ in range(steps):
        value = loss(model(x), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def compiles(model: nn.Module, x: torch.Tensor, monkeypatch) -> None:
    """One graph, without breaks, of the same result."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch._dynamo.reset()
    model.eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
