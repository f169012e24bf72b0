"""Stochastic gradient descent with momentum, AdaGrad, RMSprop, Adam and AdamW, and schedules of the learning rate.

The algorithms are written in PyTorch's form, one ``update`` of one parameter each, and take its steps. What PyTorch
adds for speed (fused kernels, capturable graphs, sparse and complex parameters) is left out. The settings have
PyTorch's names, so that its learning rate schedulers and :func:`deepstat.training.fit` work with them.

Chapter: foundations/optimizers.
"""

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.optimizer import ParamsT

Values = Float[Tensor, "*shape"]


class Optimizer(torch.optim.Optimizer):
    """What all algorithms share: for each parameter that has a gradient, one ``update``.

    An algorithm says in ``update`` how it changes a parameter, in place, given its gradient, what it remembers about
    it (``state``, empty at first), and the settings of its group.

    Args:
        params: parameters, or groups of them as dicts with the key ``"params"`` and settings of their own.
        settings: what holds for groups that say nothing else.

    Raises:
        TypeError: if a setting is not a number (``betas``: two); at a step, if a gradient is sparse or complex.
        ValueError: if a setting is out of range.
    """

    def __init__(self, params: ParamsT, **settings: Any):
        super().__init__(params, settings)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):  # torch.optim refuses the others
            check_settings({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def update(self, parameter: Values, gradient: Values, state: dict[str, Any], setting: dict[str, Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define update")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; what ``closure`` returns, which is called first, is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None:
                    if gradient.is_sparse or gradient.is_complex():
                        raise TypeError(f"gradients must be dense and real, got {gradient.layout}, {gradient.dtype}")
                    self.update(parameter, gradient, self.state[parameter], group)
        return loss


class SGD(Optimizer):
    r"""Gradient descent, with momentum: :math:`b \leftarrow \beta b + (1 - \tau) g`, :math:`\theta \leftarrow \theta - \eta b`.

    The first :math:`b` is :math:`g` itself. With ``nesterov`` the step is along :math:`g + \beta b`. Whether it is
    stochastic depends on the gradients alone. Robbins and Monro, 1951; Polyak, 1964; Nesterov, 1983, as in Sutskever
    et al., 2013. Equal to ``torch.optim.SGD``.

    Args:
        params: as for :class:`Optimizer`.
        lr: learning rate :math:`\eta \ge 0`.
        momentum: :math:`\beta` in [0, 1).
        dampening: :math:`\tau` in [0, 1].
        weight_decay: :math:`\lambda \ge 0`; adds :math:`\lambda\theta` to the gradient.
        nesterov: whether to step along :math:`g + \beta b`; needs momentum without dampening.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`, and if ``nesterov`` comes without momentum or with dampening.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False,
    ):  # fmt: skip
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )

    def update(self, parameter: Values, gradient: Values, state: dict[str, Any], setting: dict[str, Any]) -> None:
        beta, dampening = setting["momentum"], setting["dampening"]
        gradient = gradient.add(parameter, alpha=setting["weight_decay"])
        direction = gradient
        if beta > 0:
            if "b" in state:
                state["b"].mul_(beta).add_(gradient, alpha=1 - dampening)
            else:
                state["b"] = gradient.clone()
            direction = state["b"]
            if setting["nesterov"]:
                direction = gradient.add(state["b"], alpha=beta)
        parameter.sub_(direction, alpha=setting["lr"])


class Adagrad(Optimizer):
    r"""AdaGrad: :math:`G \leftarrow G + g^2`, :math:`\theta \leftarrow \theta - \eta g / (\sqrt G + \epsilon)`.

    Each coordinate has its own :math:`G`, 0 at first. Duchi, Hazan and Singer, 2011, the diagonal version, with
    :math:`\epsilon` for their :math:`\delta`. Equal to ``torch.optim.Adagrad``.

    Args:
        params: as for :class:`Optimizer`.
        lr: learning rate :math:`\eta \ge 0`.
        weight_decay: :math:`\lambda \ge 0`; adds :math:`\lambda\theta` to the gradient.
        eps: :math:`\epsilon \ge 0`, outside the root.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`.
    """

    def __init__(self, params: ParamsT, lr: float = 1e-2, weight_decay: float = 0.0, eps: float = 1e-10):
        super().__init__(params, lr=lr, weight_decay=weight_decay, eps=eps)

    def update(self, parameter: Values, gradient: Values, state: dict[str, Any], setting: dict[str, Any]) -> None:
        if not state:
            state["G"] = torch.zeros_like(parameter)
        gradient = gradient.add(parameter, alpha=setting["weight_decay"])
        state["G"].add_(gradient**2)
        parameter.sub_(setting["lr"] * gradient / (state["G"].sqrt() + setting["eps"]))


class RMSprop(Optimizer):
    r"""RMSprop: :math:`v \leftarrow \alpha v + (1 - \alpha) g^2`, :math:`\theta \leftarrow \theta - \eta g / (\sqrt v + \epsilon)`.

    Tieleman and Hinton, 2012. Equal to ``torch.optim.RMSprop`` without its options ``momentum`` and ``centered``.

    Args:
        params: as for :class:`Optimizer`.
        lr: learning rate :math:`\eta \ge 0`.
        alpha: :math:`\alpha` in [0, 1).
        eps: :math:`\epsilon \ge 0`, outside the root.
        weight_decay: :math:`\lambda \ge 0`; adds :math:`\lambda\theta` to the gradient.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0
    ):
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay)

    def update(self, parameter: Values, gradient: Values, state: dict[str, Any], setting: dict[str, Any]) -> None:
        if not state:
            state["v"] = torch.zeros_like(parameter)
        gradient = gradient.add(parameter, alpha=setting["weight_decay"])
        v = state["v"].mul_(setting["alpha"]).add_(gradient**2, alpha=1 - setting["alpha"])
        parameter.sub_(setting["lr"] * gradient / (v.sqrt() + setting["eps"]))


class Adam(Optimizer):
    r"""Adam: a step along :math:`\hat m / (\sqrt{\hat v} + \epsilon)`, with averages of the gradients and of their squares.

    .. math::

        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
        \hat m = m / (1 - \beta_1^t), \quad \hat v = v / (1 - \beta_2^t)

    after :math:`t` steps. Kingma and Ba, 2015, algorithm 1. With ``amsgrad`` the largest :math:`v` so far takes the place
    of :math:`v`: Reddi, Kale and Kumar, 2018, whose version has no bias correction. Equal to ``torch.optim.Adam``.

    Args:
        params: as for :class:`Optimizer`.
        lr: learning rate :math:`\eta \ge 0`.
        betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
        eps: :math:`\epsilon \ge 0`, outside the root.
        weight_decay: :math:`\lambda \ge 0`; adds :math:`\lambda\theta` to the gradient.
        amsgrad: whether to divide by the root of the largest :math:`v` so far.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, amsgrad: bool = False,
    ):  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def update(self, parameter: Values, gradient: Values, state: dict[str, Any], setting: dict[str, Any]) -> None:
        beta1, beta2 = setting["betas"]
        if not state:
            state["t"] = 0
            state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["t"] += 1
        gradient = self.decay(parameter, gradient, setting)
        m = state["m"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        v = state["v"].mul_(beta2).add_(gradient**2, alpha=1 - beta2)
        if setting["amsgrad"]:
            v = state["largest"] = torch.maximum(state.get("largest", v), v)
        m_hat = m / (1 - beta1 ** state["t"])
        v_hat = v / (1 - beta2 ** state["t"])
        parameter.sub_(setting["lr"] * m_hat / (v_hat.sqrt() + setting["eps"]))

    def decay(self, parameter: Values, gradient: Values, setting: dict[str, Any]) -> Values:
        """The gradient, with that of the penalty :math:`\\lambda\\lVert\\theta\\rVert^2 / 2` added."""
        return gradient.add(parameter, alpha=setting["weight_decay"])


class AdamW(Adam):
    r"""Adam with decoupled weight decay: first :math:`\theta \leftarrow (1 - \eta\lambda)\theta`, then Adam's step.

    The decay does not pass through the averages. Loshchilov and Hutter, 2019, algorithm 2, with :math:`\eta\lambda` for
    their :math:`\lambda`, as in PyTorch. Equal to ``torch.optim.AdamW``.

    Args:
        params, lr, betas, eps, amsgrad: as for :class:`Adam`.
        weight_decay: :math:`\lambda \ge 0`.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    def decay(self, parameter: Values, gradient: Values, setting: dict[str, Any]) -> Values:
        """The gradient as it is, after the parameter has been shrunk."""
        parameter.mul_(1 - setting["lr"] * setting["weight_decay"])
        return gradient


def step_decay(t: int, every: int, factor: float = 0.1) -> float:
    r"""Schedule ``factor`` to the power :math:`\lfloor t / \mathrm{every} \rfloor`. Equal to ``StepLR``.

    As all schedules here, a factor of the learning rate for ``LambdaLR``: ``lambda t: step_decay(t, 100)``.

    Args:
        t: steps done, from 0.
        every: steps between two changes, at least 1.
        factor: what the learning rate is multiplied by, positive.

    Returns:
        The factor of the learning rate for the next step.

    Raises:
        ValueError: if an argument is out of range.
    """
    _at_least("t", t, 0)
    _at_least("every", every, 1)
    if not 0 < factor < math.inf:
        raise ValueError(f"factor must be positive and finite, got {factor}")
    return factor ** (t // every)


def cosine(t: int, steps: int, floor: float = 0.0) -> float:
    r"""Schedule that falls from 1 to ``floor`` along half a wave of the cosine, and stays there.

    :math:`f + (1 - f)(1 + \cos(\pi \min(t / T, 1))) / 2`. Loshchilov and Hutter, 2017, without restarts. Equal to
    ``CosineAnnealingLR`` for :math:`t \le T`; beyond, that one rises again.

    Args:
        t: steps done, from 0.
        steps: :math:`T`, at least 1.
        floor: :math:`f` in [0, 1].

    Returns:
        The factor of the learning rate for the next step.

    Raises:
        ValueError: if an argument is out of range.
    """
    _at_least("t", t, 0)
    _at_least("steps", steps, 1)
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor}")
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(t / steps, 1))) / 2


def warmup(t: int, steps: int, start: float = 1 / 3) -> float:
    r"""Schedule that rises from ``start`` to 1 along a line, and stays there. Equal to ``LinearLR``.

    Goyal et al., 2017. A product of schedules is a schedule: ``warmup(t, 100) * cosine(t, 1000)``.

    Args:
        t: steps done, from 0.
        steps: length of the warm-up, at least 1.
        start: first value, in (0, 1].

    Returns:
        The factor of the learning rate for the next step.

    Raises:
        ValueError: if an argument is out of range.
    """
    _at_least("t", t, 0)
    _at_least("steps", steps, 1)
    if not 0 < start <= 1:
        raise ValueError(f"start must be in (0, 1], got {start}")
    return start + (1 - start) * min(t / steps, 1)


_NOT_NEGATIVE = ("lr", "weight_decay", "eps")
_BELOW_ONE = ("momentum", "alpha", "betas")


def check_settings(setting: dict[str, Any]) -> None:
    """Refuse the settings of a group that are out of range."""
    numbers = {name: (setting[name],) for name in (*_NOT_NEGATIVE, *_BELOW_ONE, "dampening") if name in setting}
    if "betas" in numbers:
        betas = setting["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas must be two numbers, got {betas!r}")
        numbers["betas"] = tuple(betas)
    for name, values in numbers.items():
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
            if name in _NOT_NEGATIVE and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
            if name in _BELOW_ONE and not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
            if name == "dampening" and not 0 <= value <= 1:
                raise ValueError(f"dampening must be in [0, 1], got {value}")
    if setting.get("nesterov") and (setting["momentum"] == 0 or setting["dampening"] != 0):
        raise ValueError(
            "nesterov needs momentum above 0 and dampening 0, "
            f"got momentum {setting['momentum']} and dampening {setting['dampening']}"
        )


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
