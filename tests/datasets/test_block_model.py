import math

import pytest
import torch
from scipy import stats

from deepstat.datasets.block_model import block_model
from helpers import refuses


def test_shapes_and_edges():
    graph = block_model(200, 4.0, 1.0, 3, 1.0, seed=0)
    assert graph.x.shape == (200, 3)
    assert graph.y.bincount().tolist() == [100, 100]
    source, target = graph.edge_index
    assert (source != target).all()
    assert len(graph.edge_weight) == len(source)
    forward = set(zip(source.tolist(), target.tolist(), strict=True))
    assert len(forward) == len(source)  # no edge twice
    assert {(t, s) for s, t in forward} == forward
    again = block_model(200, 4.0, 1.0, 3, 1.0, seed=0)
    assert torch.equal(graph.x, again.x)
    assert torch.equal(graph.edge_index, again.edge_index)
    assert not torch.equal(graph.y, block_model(200, 4.0, 1.0, 3, 1.0, seed=1).y)


@pytest.mark.parametrize("signal", [-1.5, 0.0, 2.0])
def test_edges_have_the_probabilities_of_the_model(signal):
    """Counts within and between groups against the binomial distribution; fails for one sample in a million."""
    nodes, degree = 1000, 6.0
    graph = block_model(nodes, degree, signal, 1, 0.0, seed=3)
    same = graph.y[graph.edge_index[0]] == graph.y[graph.edge_index[1]]
    a, b = degree + signal * math.sqrt(degree), degree - signal * math.sqrt(degree)
    assert (a - b) ** 2 / (2 * (a + b)) == pytest.approx(signal**2)
    pairs = {True: 2 * math.comb(500, 2), False: 500 * 500}
    for within, probability in ((True, a / nodes), (False, b / nodes)):
        count = int((same == within).sum()) // 2
        assert stats.binomtest(count, pairs[within], probability).pvalue > 1e-6


def test_features_have_the_means_of_the_groups():
    axis = torch.tensor([3.0, 4.0])
    graph = block_model(2000, 3.0, 0.5, 2, 0.7, seed=1, axis=axis)
    sign = 2.0 * graph.y - 1
    noise = graph.x - 0.7 * sign[:, None] * torch.tensor([0.6, 0.8])
    assert noise.mean(0).abs().max() < 5 / math.sqrt(2000)
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-6
    drawn = block_model(2000, 3.0, 0.5, 50, 0.7, seed=1)
    mean = (drawn.x * (2.0 * drawn.y - 1)[:, None]).mean(0)
    assert mean.square().sum().item() == pytest.approx(0.7**2 + 50 / 2000, abs=0.1)


def test_bad_input_is_refused():
    cases = (
        ((7, 2.0, 0.0, 1, 0.0, 0), "nodes must be even and at least 2, got 7"),
        ((8, 0.0, 0.0, 1, 0.0, 0), "degree must be positive, got 0"),
        ((8, 4.0, 2.1, 1, 0.0, 0), "graph_signal must be between -2 and 2, the root of degree, got 2.1"),
        ((8, 8.0, 1.0, 1, 0.0, 0), "degree must leave probabilities at most 1"),
        ((8, 2.0, 0.0, 0, 0.0, 0), "features must be at least 1, got 0"),
        ((8, 2.0, 0.0, 2, 0.0, 0, torch.zeros(2)), "axis must have shape"),
        ((8, 2.0, 0.0, 2, 0.0, 0, torch.ones(3)), "axis must have shape"),
    )
    for arguments, message in cases:
        with refuses(ValueError, message):
            block_model(*arguments)
