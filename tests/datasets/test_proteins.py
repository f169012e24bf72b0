import pytest
import torch
from scipy import stats

from deepstat.datasets import proteins
from helpers import refuses

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def sample():
    return proteins.proteins(600, seed=0)


def test_what_is_kept_of_enzymes(sample):
    """600 graphs with 32.6 nodes and 124.3 directed edges on average; a mean of ours has a standard error of 2 %."""
    nodes = torch.tensor([graph.num_nodes for graph in sample]).float()
    edges = torch.tensor([graph.num_edges for graph in sample]).float()
    assert nodes.mean().item() == pytest.approx(32.6, rel=0.05)
    assert edges.mean().item() == pytest.approx(124.3, rel=0.05)
    assert nodes.min() >= 8
    assert nodes.max() <= 80


def test_graphs_are_simple_and_hold_the_chain(sample):
    for graph in sample[:60]:
        source, target = graph.edge_index
        pairs = set(zip(source.tolist(), target.tolist(), strict=True))
        assert len(pairs) == graph.num_edges
        assert all(u != v and (v, u) in pairs for u, v in pairs)
        assert all((v, v + 1) in pairs for v in range(graph.num_nodes - 1))
        assert source.bincount().min() >= 3  # the nearest in space
        assert graph.x.shape == (graph.num_nodes, 3)
        assert torch.equal(graph.x.sum(1), torch.ones(graph.num_nodes))


def test_classes_differ_in_the_arrangement_only(sample):
    y = torch.cat([graph.y for graph in sample])
    assert y.bincount().tolist() == [200, 200, 200]
    statistics = {
        "nodes": [graph.num_nodes for graph in sample],
        "degree": [graph.num_edges / graph.num_nodes for graph in sample],
        "turns": [graph.x[:, 2].mean().item() for graph in sample],
    }
    for values in statistics.values():
        values = torch.tensor(values)
        assert stats.kruskal(*(values[y == c].numpy() for c in range(3))).pvalue > 1e-3
    halves = torch.tensor([graph.x[:, 0].mean().item() for graph in sample])
    means = torch.stack([halves[y == c].mean() for c in range(3)])
    assert (means - 0.48).abs().max() < 0.02
    unlike = torch.tensor([(graph.x[:-1] != graph.x[1:]).any(1).float().mean() for graph in sample])
    shares = [unlike[y == c].mean().item() for c in range(3)]
    assert shares[0] > shares[1] + 0.1
    assert shares[1] > shares[2] + 0.03


def test_a_seed_gives_the_same_graphs():
    first, again, other = (proteins.proteins(5, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.edge_index, b.edge_index) for a, b in zip(first, again, strict=True))
    assert any(a.num_nodes != b.num_nodes for a, b in zip(first, other, strict=True))


def test_bad_input_is_refused():
    with refuses(ValueError, "graphs must be at least 1, got 0"):
        proteins.proteins(0, 0)
    with refuses(TypeError, "graphs must be an integer, got float"):
        proteins.proteins(2.0, 0)
