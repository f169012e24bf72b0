"""Fit a network to the labels of a few nodes: every step takes the whole graph, which is one observation.

Chapter: graphs/message_passing.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deepstat.datasets.graphs import Graph
from deepstat.graphs.message_passing import check_sizes


def minimize(loss: Callable[[], Tensor], model: nn.Module, steps: int, rate: float, decay: float = 0.0) -> float:
    """Adam on a loss that takes no batch.

    Kingma and Ba, *Adam: A Method for Stochastic Optimization*, 2015. ``training.fit`` is for batches of rows.

    Args:
        loss: computes the loss of all the data from the model's present parameters.
        model: its parameters are fitted, in place.
        steps: number of steps.
        rate: learning rate.
        decay: weight of half the squared norm of all parameters, added to the loss.

    Returns:
        The loss before the last step.

    Raises:
        TypeError, ValueError: if ``steps`` is not a positive integer.
        FloatingPointError: if the last loss is not finite.
    """
    check_sizes(steps=steps)
    optimizer = torch.optim.Adam(model.parameters(), rate, weight_decay=decay)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    if not value.isfinite():
        raise FloatingPointError(f"the loss is {value.item()} after {steps} steps; lower the rate, {rate}")
    return value.item()


def fit_nodes(
    model: nn.Module,
    graph: Graph,
    rows: Int64[Tensor, " labelled"],
    steps: int = 200,
    rate: float = 0.01,
    decay: float = 5e-4,
) -> Float[Tensor, "nodes classes"]:
    """Minimize the mean cross-entropy of the labelled nodes; all nodes pass messages.

    The settings are those of Kipf and Welling, *Semi-Supervised Classification with Graph Convolutional Networks*, 2017,
    who decay the weights of the first layer only and stop early.

    Args:
        model: called with ``(x, edge_index)``, gives one score for each node and class; fitted in place, where it is.
        graph: anything with tensors ``x``, ``edge_index`` and ``y``.
        rows: the nodes whose classes ``y[rows]`` are used.
        steps: number of steps.
        rate: learning rate of Adam.
        decay: see :func:`minimize`.

    Returns:
        Scores of all nodes after the fit, in evaluation mode, on the CPU.

    Raises:
        ValueError: if ``rows`` is empty; otherwise as :func:`minimize`.
    """
    if not len(rows):
        raise ValueError("rows must name at least one node, got none")
    device = next(model.parameters()).device
    x, edges, y, rows = (t.to(device) for t in (graph.x, graph.edge_index, graph.y, rows))
    model.train()
    minimize(lambda: cross_entropy(model(x, edges)[rows], y[rows]), model, steps, rate, decay)
    with torch.no_grad():
        return model.eval()(x, edges).cpu()


def accuracy(prediction: Int64[Tensor, " nodes"], graph: Graph, rows: Int64[Tensor, " labelled"]) -> float:
    """Share of the nodes outside ``rows`` whose class is right.

    Raises:
        ValueError: if every node is in ``rows``.
    """
    rest = torch.ones(len(graph.y), dtype=torch.bool).index_fill(0, rows, False)
    if not rest.any():
        raise ValueError("rows must leave at least one node, got all")
    return (prediction == graph.y)[rest].double().mean().item()
