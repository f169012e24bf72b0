"""Gradients by hand: the two passes of an MLP, a small reverse-mode engine, checkpointing, and gradient checks.

Nothing here uses PyTorch's autograd, which the chapter and the tests hold it against.

Chapter: foundations/backpropagation.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot
from torch.utils._python_dispatch import TorchDispatchMode

from deepstat.foundations.activations import ACTIVATIONS, Activation

Matrix = Float[Tensor, "_ _"]
Vector = Float[Tensor, "_"]


class Forward(NamedTuple):
    r"""What the forward pass computes, one row an observation.

    ``preactivations`` are :math:`\mathbf z_1, \dots, \mathbf z_{K+1}`, the last one the prediction; ``activations``
    are :math:`\mathbf h_0 = \mathbf x, \mathbf h_1, \dots, \mathbf h_K`.
    """

    preactivations: tuple[Tensor, ...]
    activations: tuple[Tensor, ...]


class Gradients(NamedTuple):
    r"""Derivatives of the loss: for each layer those by its weights and by its biases, in their shapes.

    ``delta`` is the one by :math:`\mathbf z_1`, from which ``delta @ weights[0]`` is the derivative by the inputs.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    delta: Tensor


class Checkpointed(NamedTuple):
    """Gradients, and the most numbers that were kept for them at one time."""

    gradients: Gradients
    saved: int


def forward(
    x: Float[Tensor, "n inputs"],
    weights: Sequence[Matrix],
    biases: Sequence[Vector],
    activation: str = "relu",
) -> Forward:
    r"""Compute :math:`\mathbf z_k = \boldsymbol\beta_{k-1} + \boldsymbol\Omega_{k-1}\mathbf h_{k-1}` and
    :math:`\mathbf h_k = a(\mathbf z_k)`, layer by layer, and keep them all.

    The lecture's :math:`\mathbf f_{k-1}` is :math:`\mathbf z_k`.

    Args:
        x: :math:`\mathbf h_0`, shape ``(n, D_0)``.
        weights: :math:`\boldsymbol\Omega_0, \dots, \boldsymbol\Omega_K`, of shapes ``(D_{k+1}, D_k)``.
        biases: :math:`\boldsymbol\beta_0, \dots, \boldsymbol\beta_K`, of shapes ``(D_{k+1},)``.
        activation: :math:`a`, a name in ``ACTIVATIONS``.

    Raises:
        ValueError: if the shapes do not fit, there is no layer, or the activation is unknown.
    """
    a = _find(activation).function
    _check_layers(x, weights, biases)
    preactivations, activations = [], [x]
    for k in range(len(weights)):
        if k > 0:
            activations.append(a(preactivations[-1]))
        preactivations.append(activations[k] @ weights[k].T + biases[k])
    return Forward(tuple(preactivations), tuple(activations))


def backward(
    passed: Forward,
    weights: Sequence[Matrix],
    output_gradient: Float[Tensor, "n outputs"],
    activation: str = "relu",
) -> Gradients:
    r"""Compute the gradients of the loss by all weights and biases from what :func:`forward` kept.

    :math:`\boldsymbol\delta_{K+1}` is given, and
    :math:`\boldsymbol\delta_k = a'(\mathbf z_k) \odot \boldsymbol\Omega_k^\top \boldsymbol\delta_{k+1}`. The gradients
    are :math:`\boldsymbol\delta_{k+1}\mathbf h_k^\top` and :math:`\boldsymbol\delta_{k+1}`, summed over the rows.
    Rumelhart, Hinton and Williams, *Learning Representations by Back-Propagating Errors*, 1986.

    Args:
        passed: the result of :func:`forward` with the same weights and activation.
        weights: :math:`\boldsymbol\Omega_0, \dots, \boldsymbol\Omega_K`.
        output_gradient: derivative of the loss by the prediction, one row an observation, shape ``(n, D_{K+1})``.
            Of a *mean* loss it contains the factor ``1 / n``.
        activation: as in :func:`forward`.

    Raises:
        ValueError: if the numbers of layers or the shapes differ, or the activation is unknown.
    """
    derivative = _find(activation).derivative
    z, h = passed
    _check_backward(z, weights, output_gradient)
    delta = output_gradient
    by_weights, by_biases = [], []
    for k in reversed(range(len(weights))):
        by_weights.insert(0, delta.T @ h[k])
        by_biases.insert(0, delta.sum(0))
        if k > 0:  # z[k - 1] is z_k: Python counts from 0
            delta = (delta @ weights[k]) * derivative(z[k - 1])
    return Gradients(tuple(by_weights), tuple(by_biases), delta)


def checkpointed(
    x: Float[Tensor, "n inputs"],
    weights: Sequence[Matrix],
    biases: Sequence[Vector],
    loss_gradient: Callable[[Tensor], Tensor],
    segment: int,
    activation: str = "relu",
) -> Checkpointed:
    r"""Both passes, keeping :math:`\mathbf h_0, \mathbf h_s, \mathbf h_{2s}, \dots` and computing the rest again.

    The first pass keeps the inputs of segments of ``segment`` affine maps. On the way back each segment runs forward
    once more from its input, and then backward. Chen, Xu, Zhang and Guestrin, *Training Deep Nets with Sublinear
    Memory Cost*, 2016, section 4.

    Args:
        x, weights, biases, activation: as in :func:`forward`.
        loss_gradient: gives the derivative of the loss by the prediction, both of shape ``(n, D_{K+1})``.
        segment: :math:`s`, the number of affine maps in a segment, at least 1; the first one may be shorter at the end.

    Returns:
        The gradients of :func:`backward`; ``saved``, the largest number of entries of the :math:`\mathbf h_k` and
        :math:`\mathbf z_k` held together during the way back.

    Raises:
        ValueError: as :func:`forward`, and if ``segment`` is below 1.
    """
    if segment < 1:
        raise ValueError(f"segment must be at least 1, got {segment}")
    _check_layers(x, weights, biases)
    a, derivative = _find(activation)
    kept, h = {}, x
    for k in range(len(weights)):
        h = h if k == 0 else a(z)
        if k % segment == 0:
            kept[k] = h
        z = h @ weights[k].T + biases[k]
    delta, end = loss_gradient(z), len(weights)
    del h, z
    by_weights, by_biases, saved = (), (), 0
    for start in reversed(list(kept)):
        inside = slice(start, end)
        part = forward(kept[start], weights[inside], biases[inside], activation)
        held = [*kept.values(), *part.activations[1:], *part.preactivations]
        saved = max(saved, sum(tensor.numel() for tensor in held))
        if end < len(weights):  # from h_end to z_end
            delta = delta * derivative(part.preactivations[-1])
        inner = backward(part, weights[inside], delta, activation)
        by_weights = inner.weights + by_weights
        by_biases = inner.biases + by_biases
        delta = inner.delta @ weights[start] if start > 0 else inner.delta
        del kept[start], held, part
        end = start
    return Checkpointed(Gradients(by_weights, by_biases, delta), saved)


def squared_error(
    prediction: Float[Tensor, "n outputs"], target: Float[Tensor, "n outputs"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n outputs"]]:
    r"""Mean over the rows of :math:`\lVert \hat{\mathbf y} - \mathbf y \rVert^2`, and its gradient by the prediction.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"target must have the prediction's shape {tuple(prediction.shape)}, got {tuple(target.shape)}")
    error = prediction - target
    return error.square().sum(1).mean(), error * (2 / len(error))


def softmax_cross_entropy(
    logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n classes"]]:
    r"""Mean over the rows of :math:`-\log p_y` with :math:`\mathbf p` the softmax of the logits, and its gradient.

    The gradient by one row of logits is :math:`(\mathbf p - \mathbf e_y) / n`. Stable for logits of any size.

    Raises:
        ValueError: if there is not one label a row, or one is no class.
    """
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must have shape ({len(logits)},), got {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must be from 0 to {logits.shape[1] - 1}, "
                         f"got {labels.min().item()} to {labels.max().item()}")
    log_p = log_softmax(logits, dim=1)
    value = -log_p.gather(1, labels[:, None]).mean()
    return value, (log_p.exp() - one_hot(labels, logits.shape[1])) / len(logits)


Edge = tuple[Any, Callable[[Tensor], Tensor]]  # a variable or constant, and its pullback


class Variable:
    r"""A tensor that remembers how it was computed: a node of the computational graph.

    Operations on variables compute values at once and record, for each argument that is a variable, an *edge*: the
    argument and its pullback, the map from the adjoint :math:`\bar v = \partial \ell / \partial v` of the result to the
    argument's share of its own adjoint. Tensors and numbers are constants. :meth:`backward` runs the edges in
    reverse order. Linnainmaa, *Taylor Expansion of the Accumulated Rounding Error*, 1976.

    Args:
        value: a tensor of any shape, of a floating dtype.

    Attributes:
        gradient: the adjoint, in the shape of ``value``; None before :meth:`backward`.

    Raises:
        TypeError: if ``value`` is no tensor of a floating dtype.
    """

    def __init__(self, value: Tensor, edges: tuple[Edge, ...] | None = ()):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"value must be a tensor of a floating dtype, got {kind}")
        self.value, self.edges, self.gradient = value, edges, None

    def __add__(self, other: "Operand") -> "Variable":
        return _record(self.value + _plain(other), (self, lambda g: g), (other, lambda g: g))

    def __mul__(self, other: "Operand") -> "Variable":
        x, y = self.value, _plain(other)
        return _record(x * y, (self, lambda g: g * y), (other, lambda g: g * x))

    def __neg__(self) -> "Variable":
        return _record(-self.value, (self, lambda g: -g))

    def __sub__(self, other: "Operand") -> "Variable":
        return _record(self.value - _plain(other), (self, lambda g: g), (other, lambda g: -g))

    def __rsub__(self, other: "Operand") -> "Variable":
        return -self + other

    def __pow__(self, exponent: float | int) -> "Variable":
        x = self.value
        return _record(x**exponent, (self, lambda g: g * (exponent * x ** (exponent - 1))))

    def __truediv__(self, other: "Operand") -> "Variable":
        return self * other**-1

    def __rtruediv__(self, other: "Operand") -> "Variable":
        return self**-1 * other

    def __matmul__(self, other: "Operand") -> "Variable":
        x, y = self.value, _plain(other)
        return _record(x @ y, (self, lambda g: g @ y.mT), (other, lambda g: x.mT @ g))

    def __rmatmul__(self, other: Tensor) -> "Variable":
        return _record(other @ self.value, (self, lambda g: other.mT @ g))

    __radd__, __rmul__ = __add__, __mul__

    @property
    def T(self) -> "Variable":
        return _record(self.value.mT, (self, lambda g: g.mT))

    def sum(self, dim: int | None = None) -> "Variable":
        """The sum of all entries, or over one axis, which stays with length 1."""
        x = self.value
        total = x.sum() if dim is None else x.sum(dim, keepdim=True)
        return _record(total, (self, lambda g: g.expand(x.shape)))

    def mean(self) -> "Variable":
        return self.sum() * (1 / self.value.numel())

    def exp(self) -> "Variable":
        y = self.value.exp()
        return _record(y, (self, lambda g: g * y))

    def log(self) -> "Variable":
        x = self.value
        return _record(x.log(), (self, lambda g: g / x))

    def sin(self) -> "Variable":
        x = self.value
        return _record(x.sin(), (self, lambda g: g * x.cos()))

    def cos(self) -> "Variable":
        x = self.value
        return _record(x.cos(), (self, lambda g: -g * x.sin()))

    def tanh(self) -> "Variable":
        y = self.value.tanh()
        return _record(y, (self, lambda g: g * (1 - y * y)))

    def relu(self) -> "Variable":
        x = self.value
        return _record(x.relu(), (self, lambda g: g * (x > 0)))

    def backward(self) -> None:
        r"""Compute the adjoints of all variables that this one was computed from, and free the graph.

        The adjoint of a variable is the sum over its uses of the pulled back adjoints of the results. It replaces an
        earlier one. The adjoints of intermediate results stay, to look at; the edges between them do not.

        Raises:
            ValueError: if the value has more than one entry.
            RuntimeError: if the graph was freed by an earlier call.
        """
        if self.value.numel() != 1:
            got = tuple(self.value.shape)
            raise ValueError(f"backward needs one entry, got shape {got}")
        order = self._ordered()
        for node in order:
            node.gradient = None
        self.gradient = torch.ones_like(self.value)
        for node in reversed(order):
            for parent, pullback in node.edges:
                share = _sum_to(pullback(node.gradient), parent.value.shape)
                if parent.gradient is None:
                    parent.gradient = share
                else:
                    parent.gradient = parent.gradient + share
            node.edges = None if node.edges else ()

    def _ordered(self) -> list["Variable"]:
        """This variable's ancestors and itself, each after all that it was computed from."""
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            node, complete = stack.pop()
            if complete:
                order.append(node)
            elif node not in seen:
                if node.edges is None:
                    raise RuntimeError("the graph was freed by an earlier backward; compute the value again")
                seen.add(node)
                stack.append((node, True))
                stack.extend((parent, False) for parent, _ in node.edges)
        return order


Operand = Variable | Tensor | float | int


def _plain(operand: Operand) -> Tensor | float | int:
    return operand.value if isinstance(operand, Variable) else operand


def _record(value: Tensor, *edges: Edge) -> Variable:
    """A variable with the edges to those arguments that are variables."""
    kept = (edge for edge in edges if isinstance(edge[0], Variable))
    return Variable(value, tuple(kept))


def _sum_to(g: Tensor, shape: torch.Size) -> Tensor:
    """Sum over the axes along which an argument of this shape was broadcast."""
    while g.ndim > len(shape):
        g = g.sum(0)
    for axis, length in enumerate(shape):
        if length == 1 and g.shape[axis] > 1:
            g = g.sum(axis, keepdim=True)
    return g


class Operations(TorchDispatchMode):
    r"""Counts the multiplications and additions of the tensor operations inside a ``with`` block.

    A product of matrices of shapes ``(m, k)`` and ``(k, p)`` counts as ``m k p`` multiplications and ``m (k - 1) p``
    additions; products, quotients and sums of entries count as one each. Signs, comparisons and the values of
    functions such as the exponential are not counted. It sees what PyTorch runs, autograd's backward pass included.

    Attributes:
        multiplications: products and quotients of numbers.
        additions: sums and differences of numbers.
    """

    def __init__(self):
        super().__init__()
        self.multiplications = self.additions = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        if name in ("mm", "addmm"):
            (m, k), p = args[-2].shape, args[-1].shape[1]
            self.multiplications += m * k * p
            self.additions += m * (k - 1 if name == "mm" else k) * p
        elif name in ("mul", "div", "threshold_backward"):
            self.multiplications += result.numel()
        elif name in ("add", "sub", "rsub"):
            self.additions += result.numel()
        elif name == "sum":
            self.additions += args[0].numel() - result.numel()
        return result


def central_difference(
    function: Callable[..., Tensor], *inputs: Float[Tensor, "..."], step: float | None = None
) -> tuple[Tensor, ...]:
    r"""Approximate all partial derivatives by :math:`(f(x + h) - f(x - h)) / 2h`, two evaluations for each.

    The error is :math:`h^2 f''' / 6` from Taylor's formula and of the order :math:`\varepsilon f / h` from rounding, so
    the step is by default :math:`h = \varepsilon^{1/3}\max(1, \lvert x \rvert)` with the machine epsilon of the dtype.

    Args:
        function: gives a tensor with one entry for tensors like ``inputs``.
        inputs: where to differentiate; tensors of any shape, of one floating dtype. They are left as they are.
        step: :math:`h`, the same for all entries, instead of the default.

    Returns:
        One tensor for each input, in its shape.

    Raises:
        TypeError: if an input is not of a floating dtype.
        ValueError: if ``step`` is not positive and finite.
    """
    if step is not None and not 0 < step < float("inf"):
        raise ValueError(f"step must be positive and finite, got {step}")
    for x in inputs:
        if not x.is_floating_point():
            raise TypeError(f"inputs must be of a floating dtype, got {x.dtype}")
    moved = [x.detach().clone() for x in inputs]
    results = []
    for x in moved:
        result = torch.zeros_like(x)
        entries, derivatives = x.view(-1), result.view(-1)
        for i, centre in enumerate(entries.tolist()):
            h = step or torch.finfo(x.dtype).eps ** (1 / 3) * max(1.0, abs(centre))
            values, places = [], []
            for place in (centre + h, centre - h):
                entries[i] = place
                places.append(entries[i].item())  # rounded to the dtype
                values.append(function(*moved).detach().reshape(()))
            derivatives[i] = (values[0] - values[1]) / (places[0] - places[1])
            entries[i] = centre
        results.append(result)
    return tuple(results)


def gradient_check(
    function: Callable[..., Tensor],
    gradients: Sequence[Float[Tensor, "..."]],
    *inputs: Float[Tensor, "..."],
    step: float | None = None,
) -> float:
    r"""The largest difference between gradients and central differences, relative to the largest derivative.

    Args:
        function, inputs, step: as in :func:`central_difference`.
        gradients: what to check, one tensor for each input, in its shape.

    Returns:
        :math:`\max \lvert g - \hat g \rvert / \max(\lvert g \rvert, \lvert \hat g \rvert)`, both maxima over all
        entries of all inputs: about :math:`\varepsilon^{2/3}` where the gradients are right, 0 if all are 0.

    Raises:
        TypeError, ValueError: as :func:`central_difference`, and if the shapes of ``gradients`` are not the inputs'.
    """
    shapes, expected = [tuple(g.shape) for g in gradients], [tuple(x.shape) for x in inputs]
    if shapes != expected:
        raise ValueError(f"gradients must have the shapes of the inputs, {expected}, got {shapes}")
    numerical = torch.cat([g.flatten() for g in central_difference(function, *inputs, step=step)])
    given = torch.cat([g.flatten() for g in gradients])
    scale = max(given.abs().max().item(), numerical.abs().max().item())
    difference = (given - numerical).abs().max().item()
    return difference / scale if difference else 0.0


def _find(activation: str) -> Activation:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]


def _check_backward(preactivations: tuple[Tensor, ...], weights: Sequence[Tensor], output_gradient: Tensor) -> None:
    """Refuse what cannot belong to this forward pass."""
    if len(preactivations) != len(weights):
        raise ValueError(f"weights must be the {len(preactivations)} of the forward pass, got {len(weights)}")
    expected, got = tuple(preactivations[-1].shape), tuple(output_gradient.shape)
    if got != expected:
        raise ValueError(f"output_gradient must have the prediction's shape {expected}, got {got}")


def _check_layers(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    """Refuse layers that do not fit together."""
    if len(weights) == 0 or len(weights) != len(biases):
        raise ValueError(f"weights and biases must be as many, at least one, got {len(weights)} and {len(biases)}")
    width = x.shape[-1]
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.ndim != 2 or weight.shape[1] != width:
            raise ValueError(f"weights[{k}] must have shape (outputs, {width}), got {tuple(weight.shape)}")
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"biases[{k}] must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
        width = weight.shape[0]
