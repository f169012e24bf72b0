import itertools

import networkx as nx
import numpy as np
import pytest
import torch

from deepstat.graphs.weisfeiler_leman import (
    fractional_distance,
    refine,
    refine_tuples,
    same_multiset,
    subtree_features,
    torus,
)
from helpers import refuses

ROOK, SHRIKHANDE = torus(4, [(1, 0), (2, 0), (0, 1), (0, 2)]), torus(4, [(1, 0), (0, 1), (1, 1)])
NONE = torch.zeros(2, 0, dtype=torch.int64)


def edges_of(graph):
    """Both directions of every edge of a networkx graph on 0, ..., n - 1."""
    pairs = [(u, v) for u, v in graph.edges] + [(v, u) for u, v in graph.edges if u != v]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T


def partition(colours):
    """The classes of equal colours, as sets of nodes."""
    classes = {}
    for node, colour in enumerate(colours.tolist() if isinstance(colours, torch.Tensor) else colours):
        classes.setdefault(colour, set()).add(node)
    return {frozenset(c) for c in classes.values()}


def adjacency(graph):
    return torch.tensor(nx.to_numpy_array(graph, dtype=int, weight=None), dtype=torch.int64)


def random_graphs():
    return [nx.gnp_random_graph(25, p, seed=i) for i, p in enumerate((0.02, 0.06, 0.1, 0.3))] + [nx.karate_club_graph()]


@pytest.mark.parametrize("graph", random_graphs())
def test_the_classes_are_those_of_networkx_after_every_round(graph):
    edge_index, n = edges_of(graph), len(graph)
    hashes = nx.weisfeiler_lehman_subgraph_hashes(_plain(graph), node_attr="start", iterations=4)
    for k, colours in enumerate(refine(edge_index, n, rounds=4)[1:]):  # networkx's first hash is that of round 1
        assert partition(colours) == partition([hashes[v][k] for v in range(n)])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_the_classes_are_those_of_pytorch_geometric(generator):
    from torch_geometric.nn import WLConv

    edge_index = torch.randint(40, (2, 80), generator=generator)
    edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
    start = torch.randint(3, (40,), generator=generator)
    layer, theirs = WLConv(), start
    for ours in refine(edge_index, 40, start, rounds=3)[1:]:
        theirs = layer(theirs, edge_index)
        assert partition(ours) == partition(theirs)


def _plain(graph):
    plain = nx.Graph()
    plain.add_nodes_from(range(len(graph)), start=0)
    plain.add_edges_from(graph.edges)
    return plain


@pytest.mark.parametrize("graph", random_graphs())
def test_the_stable_colouring_is_the_coarsest_equitable_partition(graph):
    edge_index, n = edges_of(graph), len(graph)
    history = refine(edge_index, n)
    counts = torch.zeros(n, int(history[-1].max()) + 1, dtype=torch.int64)
    counts.index_put_((edge_index[1], history[-1][edge_index[0]]), torch.ones(edge_index.shape[1], dtype=torch.int64), accumulate=True)
    for cell in partition(history[-1]):  # equitable: as many neighbours of each colour
        assert len({tuple(row) for row in counts[sorted(cell)].tolist()}) == 1
    sizes = [len(partition(c)) for c in history]
    assert sizes == sorted(set(sizes))  # strictly finer each time, and no round too many
    assert all(int(c.max()) + 1 == size for c, size in zip(history, sizes, strict=True))
    more = refine(edge_index, n, rounds=len(history) + 2)
    assert len(more) == len(history) + 3
    assert partition(more[-1]) == partition(history[-1])
    assert all(torch.equal(a, b) for a, b in zip(history, more, strict=False))


def test_renumbering_moves_the_colours(generator):
    for _ in range(20):
        edge_index = torch.randint(30, (2, 50), generator=generator)
        start, pi = torch.randint(2, (30,), generator=generator), torch.randperm(30, generator=generator)
        moved = torch.empty_like(start)
        moved[pi] = start
        order = torch.randperm(50, generator=generator)
        for a, b in zip(refine(edge_index, 30, start), refine(pi[edge_index[:, order]], 30, moved), strict=True):
            assert torch.equal(a, b[pi])


def test_known_colours():
    """A path of four nodes: ends and middle; a star; a directed edge; a loop; a double edge; start colours kept apart."""
    path = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    assert [c.tolist() for c in refine(path, 4)] == [[0, 0, 0, 0], [0, 1, 1, 0]]
    assert refine(torch.tensor([[0], [1]]), 2)[-1].tolist() == [0, 1]
    assert len(partition(refine(torch.tensor([[0], [0]]), 2)[-1])) == 2
    assert len(partition(refine(torch.tensor([[0, 0, 2], [1, 1, 3]]), 4, rounds=1)[1])) == 3
    assert [c.tolist() for c in refine(NONE, 3, torch.tensor([7, -2, 7]))] == [[1, 0, 1]]
    assert [c.tolist() for c in refine(NONE, 3)] == [[0, 0, 0]]
    assert [c.tolist() for c in refine(NONE, 0, rounds=2)] == [[], [], []]
    assert len(refine(path, 4, rounds=0)) == 1
    longer = refine(edges_of(nx.path_graph(9)), 9)  # the distance from the end, one more each round
    assert [len(partition(c)) for c in longer] == [1, 2, 3, 4, 5]


def test_trees_are_told_apart():
    """1-WL identifies every tree: the trees with up to nine nodes, all pairs of one size."""
    for n in range(4, 10):
        trees = [edges_of(t) for t in nx.nonisomorphic_trees(n)]
        union = torch.cat([t + n * i for i, t in enumerate(trees)], 1)
        last = refine(union, n * len(trees))[-1].view(len(trees), n).sort(1).values
        assert len(torch.unique(last, dim=0)) == len(trees)


def test_the_known_pairs():
    cycles = torch.cat([edges_of(nx.cycle_graph(6)), edges_of(nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))) + 6], 1)
    assert not refine(cycles, 12)[-1].any()
    assert not refine(torch.cat([ROOK, SHRIKHANDE + 16], 1), 32)[-1].any()
    for edges in (ROOK, SHRIKHANDE):
        graph = nx.from_edgelist(edges.T.tolist())
        assert nx.is_strongly_regular(graph)
        assert sorted(dict(graph.degree).values()) == [6] * 16
    assert nx.is_isomorphic(nx.from_edgelist(ROOK.T.tolist()), nx.line_graph(nx.complete_bipartite_graph(4, 4)))
    assert not nx.is_isomorphic(nx.from_edgelist(ROOK.T.tolist()), nx.from_edgelist(SHRIKHANDE.T.tolist()))


@pytest.mark.parametrize(("k", "apart"), [(2, False), (3, True)])
def test_folklore_wl_on_the_strongly_regular_pair(k, apart):
    both = torch.stack([adjacency(nx.from_edgelist(sorted(e.T.tolist()))) for e in (ROOK, SHRIKHANDE)])
    colours = refine_tuples(both, k)
    assert same_multiset(*colours) is not apart
    if k == 2:
        assert int(colours.max()) == 2  # equal, adjacent, neither: the relations of a strongly regular graph


def test_folklore_wl_against_loops(generator):
    """The definition written with dictionaries, on random graphs that share a number of nodes."""
    graphs = torch.stack([adjacency(nx.gnp_random_graph(6, 0.4, seed=s)) for s in range(3)])
    for k in (2, 3):
        tuples = list(itertools.product(range(6), repeat=k))
        colour = {(g, t): (tuple(a == b for a in t for b in t), tuple(int(graphs[g, a, b]) for a in t for b in t))
                  for g in range(3) for t in tuples}
        for _ in range(6):
            def signature(g, t, colour=colour):
                other = [tuple(colour[g, t[:i] + (w,) + t[i + 1:]] for i in range(len(t))) for w in range(6)]
                return (colour[g, t], tuple(sorted(other)))
            raw = {key: signature(*key) for key in colour}
            rank = {s: i for i, s in enumerate(sorted(set(raw.values())))}
            colour = {key: rank[s] for key, s in raw.items()}
        ours = refine_tuples(graphs, k).flatten()
        assert partition(ours) == partition([colour[g, t] for g in range(3) for t in tuples])


def test_folklore_wl_of_a_directed_edge_and_a_permutation(generator):
    assert len(refine_tuples(torch.tensor([[[0, 1], [0, 0]]])).unique()) == 4  # all four pairs differ
    a = adjacency(nx.gnp_random_graph(9, 0.4, seed=1))
    pi = torch.randperm(9, generator=generator)
    one, two = refine_tuples(torch.stack([a, a[pi][:, pi]]))
    assert torch.equal(one[pi][:, pi], two)


def test_two_triangles_fall_to_two_dimensions():
    pair = [adjacency(nx.cycle_graph(6)), adjacency(nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)))]
    assert not same_multiset(*refine_tuples(torch.stack(pair)))


def test_subtree_features_count_the_colours(generator):
    edges, nodes = torch.randint(12, (2, 30), generator=generator), 36
    union = torch.cat([edges, edges + 12, torch.randint(12, (2, 30), generator=generator) + 24], 1)
    batch, mixed = torch.arange(nodes) // 12, torch.randperm(nodes, generator=generator)
    start = torch.randint(2, (12,), generator=generator).repeat(3)
    features = subtree_features(union, nodes, batch, 4, start, rounds=2).toarray()
    assert (features[0] == features[1]).all()
    assert not (features[0] == features[2]).all()
    assert not features[3].any()
    assert (features.sum(1) == [36, 36, 36, 0]).all()  # three colourings of twelve nodes
    expected = np.hstack([
        [[(c[batch == g] == j).sum() for j in range(int(c.max()) + 1)] for g in range(4)]
        for c in refine(union, nodes, start, 2)
    ])
    assert (features == expected).all()
    moved, new_start = torch.empty_like(batch), torch.empty_like(start)
    moved[mixed], new_start[mixed] = batch, start
    assert (subtree_features(mixed[union], nodes, moved, 4, new_start, rounds=2).toarray() == features).all()
    assert subtree_features(NONE, 0, batch[:0], 2).shape == (2, 0)
    assert subtree_features(union, nodes, batch, 3, rounds=0).shape == (3, 1)


def test_the_subtree_kernel_of_a_worked_example():
    """Path and triangle, one round: node counts 3 and 3; then degrees 1, 2, 1 and 2, 2, 2, by hand."""
    edges = torch.cat([edges_of(nx.path_graph(3)), edges_of(nx.cycle_graph(3)) + 3], 1)
    x = subtree_features(edges, 6, torch.arange(6) // 3, 2, rounds=1)
    assert (x @ x.T).toarray().tolist() == [[9 + 5, 9 + 3], [9 + 3, 9 + 9]]


@pytest.mark.slow
def test_fractional_distance_is_equivalence_under_refinement():
    """All connected graphs with five nodes in networkx's atlas, and six-node ones with equal degrees."""
    atlas = [g for g in nx.graph_atlas_g() if len(g) == 5]
    cubic = [nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), nx.path_graph(6)]
    for graphs, n in ((atlas[::3], 5), (cubic, 6)):
        for first, second in itertools.combinations(graphs, 2):
            union = torch.cat([edges_of(first), edges_of(second) + n], 1)
            last = refine(union, 2 * n)[-1]
            a, b = nx.to_numpy_array(first), nx.to_numpy_array(second)
            distance, s = fractional_distance(a, b)
            assert (distance < 1e-9) is same_multiset(last[:n], last[n:])
            assert distance == pytest.approx(abs(a @ s - s @ b).sum(), abs=1e-9)
            np.testing.assert_allclose([*s.sum(0), *s.sum(1)], 1, atol=1e-9)
            assert s.min() >= -1e-12
            no_shape = abs(a.sum() - b.sum())  # every S keeps the number of edges
            assert no_shape - 1e-9 <= distance <= abs(a - b).sum() + 1e-9  # the identity is allowed


def test_fractional_distance_of_directed_graphs():
    """AS = SB, not SA = BS: one edge each, in this and that direction, are isomorphic; two orientations of a path not."""
    a, b = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    distance, s = fractional_distance(a, b)
    assert distance == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(s, [[0, 1], [1, 0]], atol=1e-9)
    out, into = np.zeros((3, 3)), np.zeros((3, 3))
    out[1, [0, 2]], into[[0, 2], 1] = 1, 1
    assert fractional_distance(out, into)[0] > 0.5
    assert fractional_distance(out, out)[0] == pytest.approx(0, abs=1e-9)


def test_a_known_distance():
    """No edge against one edge: S takes (AS) to sums of rows, whatever it is; the distance is the two edge ends."""
    edge = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert fractional_distance(edge, 0 * edge)[0] == pytest.approx(2)
    assert fractional_distance(0 * edge, edge)[0] == pytest.approx(2)


def test_same_multiset():
    assert same_multiset(torch.tensor([[1, 2], [2, 3]]), torch.tensor([[3, 2], [1, 2]])) is True
    assert same_multiset(torch.tensor([1, 2, 2]), torch.tensor([1, 1, 2])) is False
    assert same_multiset(torch.tensor([1]), torch.tensor([1, 1])) is False


def test_the_torus():
    assert torus(5, [(1, 0), (0, 1)]).shape == (2, 100)
    grid = nx.from_edgelist(torus(5, [(1, 0), (0, 1)]).T.tolist())
    assert nx.is_isomorphic(grid, nx.grid_2d_graph(5, 5, periodic=True))
    assert torus(2, []).shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: refine(NONE.float(), 3), TypeError, "edge_index must be a tensor of int64, got torch.float32"),
        (lambda: refine(ROOK, 15), ValueError, "edge_index must be between 0 and 14, got entries from 0 to 15"),
        (lambda: refine(NONE, 3, torch.zeros(2).long()), ValueError, r"colours must have shape \(3,\), got \(2,\)"),
        (lambda: refine(NONE, 3, torch.zeros(3)), TypeError, "colours must be a tensor of int64, got torch.float32"),
        (lambda: refine(NONE, 3, rounds=-1), ValueError, "rounds must not be negative, got -1"),
        (lambda: refine(NONE, 3, rounds=1.5), TypeError, "rounds must be an integer or None, got float"),
        (lambda: subtree_features(ROOK, 16, torch.zeros(16).long(), 1, rounds=None), TypeError, "rounds must be an integer"),
        (lambda: subtree_features(ROOK, 16, torch.zeros(15).long(), 1), ValueError, r"batch must have shape \(16,\)"),
        (lambda: subtree_features(ROOK, 16, torch.ones(16).long(), 1), ValueError, "batch must be between 0 and 0"),
        (lambda: subtree_features(ROOK, 16, -torch.ones(16).long(), 1), ValueError, "batch must be between 0 and 0"),
        (lambda: subtree_features(ROOK, 16, torch.arange(16), 16), ValueError, "must not join nodes of different graphs"),
        (lambda: subtree_features(ROOK, 16, torch.zeros(16).long(), 1.0), TypeError, "graphs must be an integer"),
        (lambda: subtree_features(NONE, 0, torch.zeros(0).long(), -1), ValueError, "graphs must not be negative"),
        (lambda: refine_tuples(torch.zeros(1, 2, 2)), TypeError, "adjacency must be a tensor of int64"),
        (lambda: refine_tuples(torch.zeros(1, 2, 3).long()), ValueError, r"adjacency must have shape"),
        (lambda: refine_tuples(torch.zeros(1, 0, 0).long()), ValueError, r"adjacency must have shape"),
        (lambda: refine_tuples(torch.zeros(1, 2, 2).long(), 1), ValueError, "k must be at least 2"),
        (lambda: refine_tuples(torch.zeros(1, 40, 40).long(), 4), ValueError, "k must be at least 2 and"),
        (lambda: refine_tuples(torch.zeros(1, 2, 2).long(), 2.0), TypeError, "k must be an integer, got float"),
        (lambda: fractional_distance(np.zeros((2, 3)), np.zeros((2, 3))), ValueError, "must be square"),
        (lambda: fractional_distance(np.zeros((2, 2)), np.zeros((3, 3))), ValueError, "of one shape"),
        (lambda: fractional_distance(np.zeros((0, 0)), np.zeros((0, 0))), ValueError, "not empty"),
        (lambda: torus(1, []), ValueError, "size must be at least 2, got 1"),
        (lambda: torus(4, [(4, 0)]), ValueError, "steps must lead to another point"),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with refuses(error, match):
        call()
