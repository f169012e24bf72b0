import numpy as np
import pytest
import torch

from deepstat.datasets.neighbourhoods import neighbourhoods
from helpers import refuses


@pytest.mark.parametrize("mixed", [False, True])
def test_the_class_is_the_stated_function_of_the_neighbours(mixed, generator):
    x, edges, y = neighbourhoods(60, mixed, generator)
    for v in range(60):
        values = x[edges[0, edges[1] == v]].numpy()
        if mixed:
            expected = (values[:, 3] * np.abs(values[:, 0])).sum() > 0
        else:
            expected = len(values) > 0 and values[:, 0].var() > 0.75
        assert y[v].item() == expected


def test_edges_go_both_ways_without_loops_or_repeats(generator):
    edges = neighbourhoods(200, True, generator).edge_index
    pairs = {tuple(pair) for pair in edges.T.tolist()}
    assert len(pairs) == edges.shape[1]
    assert pairs == {(v, u) for u, v in pairs}
    assert all(u != v for u, v in pairs)


@pytest.mark.parametrize("mixed", [False, True])
def test_degree_features_and_classes_have_the_stated_distribution(mixed, generator):
    x, edges, y = neighbourhoods(2000, mixed, generator, degree=6.0)
    pairs = 2000 * 1999 / 2
    chance = 6 / 2000
    assert abs(edges.shape[1] / 2 - pairs * chance) < 4 * (pairs * chance) ** 0.5
    assert x[:, :3].mean().abs() < 4 / 6000**0.5
    assert (x[:, :3].std() - 1).abs() < 4 / 12000**0.5
    assert set(x[:, 3].tolist()) == ({-1.0, 1.0} if mixed else {0.0})
    assert x[:, 3].mean().abs() < 4 / 2000**0.5
    assert 0.35 < y.mean() < 0.6  # neither class is rare


def test_the_same_generator_state_gives_the_same_graph():
    one, two = (neighbourhoods(50, True, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_isolated_nodes_have_class_zero():
    x, edges, y = neighbourhoods(200, False, torch.Generator().manual_seed(0), degree=0.5)
    alone = torch.bincount(edges[1], minlength=200) == 0
    assert alone.sum() > 50
    assert not y[alone].any()


def test_impossible_sizes_are_refused(generator):
    with refuses(ValueError, "degree must be positive, got 0"):
        neighbourhoods(10, True, generator, degree=0.0)
    with refuses(ValueError, "nodes must be more than degree = 6.0, got 6"):
        neighbourhoods(6, True, generator)
