import dataclasses

import pytest
import torch

from deepstat.datasets import rankings


def test_political_goals_are_croons_table():
    goals = rankings.political_goals()
    assert goals.orders.shape == (24, 4)
    assert goals.counts.sum() == 2262
    assert torch.equal(goals.orders.sort(1).values, torch.arange(4).expand(24, 4))
    assert len(goals.orders.unique(dim=0)) == 24
    counts = {tuple(order): count for order, count in zip(goals.orders.tolist(), goals.counts.tolist(), strict=True)}
    assert (counts[0, 1, 2, 3], counts[0, 2, 3, 1], counts[2, 0, 1, 3], counts[3, 2, 1, 0]) == (137, 255, 330, 27)
    assert repr(goals) == "Rankings(2262 rankings of 4 items)"
    assert all([goals.source, goals.licence])
    with pytest.raises(dataclasses.FrozenInstanceError):
        goals.counts = None


def test_the_two_readings_differ_as_the_docstring_says():
    goals = rankings.political_goals()

    def share(orders, pair):
        first = orders[:, :2].sort(1).values
        return round((100 * goals.counts[(first == torch.tensor(pair)).all(1)].sum() / 2262).item())

    order_and_prices, say_and_freedom = (0, 2), (1, 3)
    assert (share(goals.orders, order_and_prices), share(goals.orders, say_and_freedom)) == (53, 8)
    ranks = goals.orders.argsort(1)  # the same rows read as ranks of the goals
    assert (share(ranks, order_and_prices), share(ranks, say_and_freedom)) == (20, 20)
