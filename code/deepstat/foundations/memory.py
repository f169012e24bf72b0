"""Bytes that a training step keeps: predicted for a multilayer perceptron, and counted.

Chapter: foundations/pytorch.
"""

from collections.abc import Callable, Iterable, Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from deepstat.foundations.mlp import check_widths, parameter_count


def predicted_bytes(
    widths: Sequence[int], rows: int, itemsize: int = 4, states: int = 2, kept_by_activation: int = 0
) -> dict[str, int]:
    r"""What a step of a multilayer perceptron with the mean squared error keeps, with :math:`b` bytes a number.

    Parameters :math:`bP`, gradients :math:`bP`, optimizer :math:`sbP`, and the tensors saved for the backward pass: the
    input of each layer, :math:`bB(D_0 + \dots + D_K)`; what the activation keeps besides its result, :math:`m` tensors
    of :math:`bB(D_1 + \dots + D_K)`; prediction and target, :math:`2bBD_{K+1}`.

    Args:
        widths: :math:`(D_0, \dots, D_{K+1})`.
        rows: batch size :math:`B`, at least 1.
        itemsize: :math:`b`, bytes of one number; 4 for float32.
        states: :math:`s`, numbers that the optimizer keeps for each parameter: 0 for plain SGD, 1 with momentum, 2 for
            Adam (whose step counters, 4 bytes for each tensor of parameters, are left out).
        kept_by_activation: :math:`m`; 0 for ReLU, tanh and sigmoid, whose derivatives are functions of their results,
            which the next layer keeps anyway; 1 for GELU, whose derivative needs its input.

    Returns:
        Bytes of ``parameters``, ``gradients``, ``optimizer`` and ``saved``.

    Raises:
        TypeError: if a width is not an integer.
        ValueError: if there are fewer than two widths, or a number is out of range.
    """
    widths = check_widths(widths)
    least = {"rows": (rows, 1), "itemsize": (itemsize, 1), "states": (states, 0)}
    for name, (value, bound) in (least | {"kept_by_activation": (kept_by_activation, 0)}).items():
        if value < bound:
            raise ValueError(f"{name} must be at least {bound}, got {value}")
    parameters = itemsize * parameter_count(widths)
    hidden = sum(widths[1:-1])
    saved = itemsize * rows * (widths[0] + hidden + kept_by_activation * hidden + 2 * widths[-1])
    return {"parameters": parameters, "gradients": parameters, "optimizer": states * parameters, "saved": saved}


def saved_bytes(compute: Callable[[], Tensor], exclude: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages that autograd keeps for the backward pass of ``compute()``.

    A storage that several operations keep counts once.

    Args:
        compute: makes the tensor whose graph is looked at.
        exclude: tensors, such as the parameters, whose storages do not count.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the graph of a result that keeps itself would never be freed

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = compute()
    del result  # until here the graph held the storages, so no address was used twice
    return sum(found.values())


def step_bytes(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "rows features"],
    y: Float[Tensor, "rows outputs"],
    optimizer: Optimizer,
) -> dict[str, int]:
    """Make one training step and count what it keeps, in the categories of :func:`predicted_bytes`.

    Args:
        model: is trained by one step.
        loss: ``loss(model(x), y)``, a scalar.
        x: input, shape ``(rows, features)``.
        y: target, shape ``(rows, outputs)``.
        optimizer: of the model's parameters.
    """
    parameters = list(model.parameters())
    saved = saved_bytes(lambda: loss(model(x), y), exclude=parameters)
    optimizer.zero_grad()
    loss(model(x), y).backward()
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    return {
        "parameters": sum(parameter.nbytes for parameter in parameters),
        "gradients": sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None),
        "optimizer": sum(tensor.nbytes for tensor in state if tensor.ndim),  # without Adam's step counters
        "saved": saved,
    }
