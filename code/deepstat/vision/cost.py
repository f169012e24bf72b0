"""What a network costs: its layers as a table, parameters, multiply-adds, seconds of a training step.

Chapter: vision/classic_cnns.
"""

import copy
import time
from collections.abc import Callable

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def parameters(model: nn.Module) -> int:
    """How many numbers are trained; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def layer_table(model: nn.Module, shape: tuple[int, ...], whole: tuple[type, ...] = ()) -> pandas.DataFrame:
    r"""One row a layer, in the order in which one input passes them: what forward hooks see.

    A convolution with :math:`C` input channels, :math:`g` groups, :math:`C'` filters of :math:`k \times k` and
    :math:`h' \times w'` output positions takes :math:`h' w' C' (C / g) k^2` multiply-adds, a linear layer as many as
    it has weights. Biases, activations, normalization and pooling are not counted, as in the papers.

    Args:
        model: run in evaluation mode and left as it was, on its own device; on ``meta`` nothing is computed.
        shape: of the input, ``(1, channels, height, width)``.
        whole: classes of modules that get a single row with the sums of what is in them. Other rows are those of
            convolution, linear and pooling layers; normalization and activations have none.

    Returns:
        Columns ``name`` in the model; ``type``; ``filters``; ``kernel``, ``stride`` and ``padding`` as numbers, missing
        where the layer has none; ``output``, its shape without the batch; ``parameters``, of the module alone;
        ``multiply_adds``.

    Raises:
        ValueError: if ``shape`` does not begin with 1.
    """
    if len(shape) < 2 or shape[0] != 1:
        raise ValueError(f"shape must begin with 1, the batch, got {shape}")
    rows: list[dict] = []
    inside: list[dict] = []  # the open row of a module of `whole`
    handles = []

    def enter(module: nn.Module, _: tuple) -> None:
        row = {"name": names[module], "type": type(module).__name__, "multiply_adds": 0}
        row["parameters"] = parameters(module)
        rows.append(row)
        inside.append(row)

    def leave(module: nn.Module, _: tuple, output: Tensor) -> None:
        inside.pop()["output"] = tuple(output.shape[1:])

    def see(module: nn.Module, _: tuple, output: Tensor) -> None:
        operations = multiply_adds(module, output)
        for row in inside:
            row["multiply_adds"] += operations
        if not inside:
            row = {"name": names[module], "type": type(module).__name__, "multiply_adds": operations}
            row |= {"parameters": parameters(module), "output": tuple(output.shape[1:])}
            row["filters"] = getattr(module, "out_channels", getattr(module, "out_features", None))
            for key, attribute in (("kernel", "kernel_size"), ("stride", "stride"), ("padding", "padding")):
                value = getattr(module, attribute, None)
                row[key] = value[0] if isinstance(value, tuple) else value
            rows.append(row)

    names = {module: name for name, module in model.named_modules()}
    for module in names:
        if isinstance(module, whole):
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        elif isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(see))
    device = next(model.parameters()).device
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(shape, device=device, dtype=next(model.parameters()).dtype))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    columns = ["name", "type", "filters", "kernel", "stride", "padding", "output", "parameters", "multiply_adds"]
    table = pandas.DataFrame(rows, columns=columns)
    return table.astype({name: "Int64" for name in columns[2:6]})


def multiply_adds(layer: nn.Module, output: Tensor) -> int:
    """Multiplications of one input's pass through a layer that gave ``output``; 0 for a layer without weights."""
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return 0
    positions = output[0].numel() // output.shape[1] if isinstance(layer, nn.Conv2d) else 1
    return positions * layer.weight.numel()


def seconds_per_step(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "B C h w"],
    y: Int[Tensor, " B"],
    *,
    bfloat16: bool = False,
    channels_last: bool = False,
    compiled: bool = False,
    steps: int = 10,
) -> float:
    """Time of one training step: forward, backward and an update by plain SGD; the mean of ``steps`` after three.

    Args:
        model: a copy of it is trained, on the device of ``x``.
        loss: ``loss(model(x), y)``, a scalar.
        x: images, shape ``(B, C, h, w)``.
        y: classes, shape ``(B,)``.
        bfloat16: autocast to bfloat16; parameters stay in float32.
        channels_last: keep channels innermost in memory.
        compiled: use ``torch.compile``.
        steps: to average over.

    Returns:
        Seconds.
    """
    model = copy.deepcopy(model).to(x.device).train()
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def synchronize() -> None:
        if x.device.type == "cuda":
            torch.cuda.synchronize()

    for step in range(3 + steps):
        if step == 3:
            synchronize()
            started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            value = loss(run(x), y)
        value.backward()
        optimizer.step()
    synchronize()
    return (time.perf_counter() - started) / steps


def check_sizes(**sizes: int) -> None:
    """Refuse sizes that are no positive integers."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def require_final_map(features: nn.Sequential, x: Tensor, channels: int, positions: int, good: int) -> None:
    """Refuse images after whose convolutions and pooling not ``positions`` × ``positions`` are left."""
    left = []
    if x.ndim == 4 and x.shape[1] == channels:
        for size in x.shape[2:]:
            for layer in features:
                if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                    kernel, stride, padding = (
                        v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.stride, layer.padding)
                    )
                    size = (size + 2 * padding - kernel) // stride + 1
            left.append(size)
    if left != [positions, positions]:
        raise ValueError(
            f"x must have shape (B, {channels}, {good}, {good}) or a size that leaves {positions} x {positions} "
            f"positions before the fully connected layers, got {tuple(x.shape)}"
        )
