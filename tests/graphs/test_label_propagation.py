import networkx
import numpy as np
import pytest
import torch

from deepstat.datasets.block_model import block_model
from deepstat.datasets.graphs import karate_club
from deepstat.graphs.label_propagation import bethe_hessian, harmonic, match_masses
from helpers import refuses


def both(pairs):
    upper = torch.tensor(pairs).T
    return torch.cat([upper, upper.flip(0)], dim=1)


PATH = both([(0, 1), (1, 2), (2, 3), (3, 4)])


def dense(edges, nodes, labelled, labels, classes):
    a = torch.zeros(nodes, nodes, dtype=torch.float64)
    a.index_put_((edges[0], edges[1]), torch.ones(edges.shape[1], dtype=torch.float64), accumulate=True)
    free = torch.ones(nodes, dtype=torch.bool)
    free[labelled] = False
    f = torch.zeros(nodes, classes, dtype=torch.float64)
    f[labelled, labels] = 1
    system = (a.sum(1).diag() - a)[free][:, free]
    f[free] = torch.linalg.solve(system, a[free][:, ~free] @ f[~free])
    return f


def test_a_path_is_linear():
    f = harmonic(PATH, 5, torch.tensor([4, 0]), torch.tensor([1, 0]), 2)
    torch.testing.assert_close(f[:, 1], torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(f.sum(1), torch.ones(5, dtype=torch.float64))
    assert f[0].tolist() == [1, 0]


def test_the_dense_solution_on_the_karate_club(device):
    club = karate_club()
    labelled = torch.tensor([0, 33, 5])
    labels = torch.tensor([0, 1, 2])
    f = harmonic(*(t.to(device) if isinstance(t, torch.Tensor) else t for t in (club.edge_index, 34, labelled, labels, 3)))
    torch.testing.assert_close(f.cpu(), dense(club.edge_index, 34, labelled, labels, 3), rtol=0, atol=1e-9)
    loops = torch.cat([club.edge_index, torch.tensor([[3, 3], [3, 3]])], dim=1)  # change nothing
    torch.testing.assert_close(harmonic(loops, 34, labelled, labels, 3), f.cpu(), rtol=0, atol=1e-9)


def test_long_paths_converge():
    nodes = 400
    line = [(i, i + 1) for i in range(nodes - 1)]
    f = harmonic(both(line), nodes, torch.tensor([0, nodes - 1]), torch.tensor([0, 1]), 2)
    torch.testing.assert_close(f[:, 1], torch.linspace(0, 1, nodes, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.filterwarnings("ignore")
def test_networkx_agrees_on_the_classes():
    graph = networkx.karate_club_graph()
    for node in graph:
        graph.nodes[node].pop("club")
    graph.nodes[0]["label"], graph.nodes[33]["label"] = 0, 1
    for _, _, data in graph.edges(data=True):
        data.clear()  # our edges have no weights
    theirs = networkx.node_classification.harmonic_function(graph, max_iter=1000)
    f = harmonic(karate_club().edge_index, 34, torch.tensor([0, 33]), torch.tensor([0, 1]), 2)
    assert f.argmax(1).tolist() == list(theirs)


def test_without_a_path_to_a_label():
    edges = both([(0, 1), (1, 2), (3, 4)])
    f = harmonic(edges, 6, torch.tensor([0, 2, 1]), torch.tensor([0, 1, 0]), 2)
    torch.testing.assert_close(f[3:], torch.tensor([[2 / 3, 1 / 3]], dtype=torch.float64).expand(3, 2))
    one = harmonic(edges, 6, torch.tensor([0]), torch.tensor([1]), 2)  # one class only
    torch.testing.assert_close(one, torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(6, 2))
    every = harmonic(PATH, 5, torch.arange(5), torch.arange(5), 5)  # nothing left to find
    assert torch.equal(every, torch.eye(5, dtype=torch.float64))


def test_masses_are_the_prior():
    f = harmonic(PATH, 5, torch.tensor([0, 1]), torch.tensor([0, 1]), 2)  # all free nodes are nearer to node 1
    assert f.argmax(1).tolist() == [0, 1, 1, 1, 1]
    line = harmonic(PATH, 5, torch.tensor([0, 4]), torch.tensor([0, 1]), 2)  # 3/4, 1/2, 1/4
    scaled = match_masses(line, torch.tensor([0, 4]), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(scaled[1:4].sum(0), torch.tensor([0.2, 0.8], dtype=torch.float64))
    torch.testing.assert_close(scaled[1] * 1.5, torch.tensor([0.2 * 0.75, 0.8 * 0.25], dtype=torch.float64))
    assert torch.equal(scaled[[0, 4]], line[[0, 4]])
    assert match_masses(f, torch.tensor([0, 1]), torch.tensor([0.5, 0.5])).isfinite().all()  # a column without mass
    with refuses(ValueError, "prior must be 2 shares that are not negative, got"):
        match_masses(f, torch.tensor([0, 1]), torch.tensor([1.0, 0.5, 0.5]))
    with refuses(ValueError, "prior must be 2 shares"):
        match_masses(f, torch.tensor([0, 1]), torch.tensor([-1.0, 2.0]))


def test_bad_input_is_refused():
    zero, one = torch.tensor([0]), torch.tensor([1])
    cases = (
        ((PATH, 4, zero, one, 2), "edge_index must be between 0 and 3"),
        ((PATH[:, :4], 5, zero, one, 2), "edge_index must hold every edge in both directions"),
        ((PATH, 5, zero[:0], one[:0], 2), "labelled must name at least one node"),
        ((PATH, 5, zero, torch.tensor([0, 1]), 2), r"labels must have shape \(1,\)"),
        ((PATH, 5, zero + 5, one, 2), "labelled must be between 0 and 4, got 5 to 5"),
        ((PATH, 5, zero, one + 1, 2), "labels must be between 0 and 1, got 2 to 2"),
        ((PATH, 5, torch.tensor([1, 1]), torch.tensor([0, 1]), 2), "labelled must name each node once"),
    )
    for arguments, message in cases:
        with refuses(ValueError, message):
            harmonic(*arguments)


@pytest.mark.parametrize("case", ["club", "sparse", "with a loop"])
def test_the_bethe_hessian_is_that_of_networkx(case):
    club = karate_club().edge_index
    edges, nodes = {
        "club": (club, 34),
        "sparse": (block_model(200, 4.0, 1.0, 1, 0.0, 0).edge_index, 200),
        "with a loop": (torch.cat([club, torch.tensor([[3], [3]])], dim=1), 34),
    }[case]
    graph = networkx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edges.T.tolist())
    matrix = networkx.to_numpy_array(graph)
    d = matrix.sum(1)
    r = np.sqrt((d**2).sum() / d.sum() - 1)
    values, vectors = np.linalg.eigh(networkx.bethe_hessian_matrix(graph, r).toarray())
    assert values[2] - values[1] > 1e-3  # the vector is well defined
    found = bethe_hessian(edges, nodes)
    assert found.dtype == torch.int64
    sure = abs(vectors[:, 1]) > 1e-8  # an isolated node has zero, either sign after rounding
    agree = (found.numpy() == (vectors[:, 1] > 0))[sure]
    assert sure.mean() > 0.9
    assert agree.all() or not agree.any()


def test_the_bethe_hessian_finds_planted_groups(device):
    graph = block_model(400, 6.0, 2.4, 1, 0.0, 1)
    right = (bethe_hessian(graph.edge_index.to(device), 400) == graph.y).double().mean().item()
    assert max(right, 1 - right) > 0.95


def test_graphs_without_two_groups_are_refused():
    for edges, nodes, message in (
        (PATH, 4, "edge_index must be between 0 and 3"),
        (PATH[:, :4], 5, "edge_index must hold every edge in both directions"),
        (both([(0, 1)]), 2, "nodes must be at least 3, got 2"),
        (both([(0, 1), (2, 3)]), 4, "two neighbours, got at most one each"),
        (torch.zeros(2, 0, dtype=torch.int64), 3, "two neighbours"),
    ):
        with refuses(ValueError, message):
            bethe_hessian(edges, nodes)
