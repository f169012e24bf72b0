import itertools
import math

import jaxtyping
import networkx
import numpy as np
import pytest
import torch
from scipy.sparse import csgraph

from deepstat.datasets import graphs
from deepstat.graphs import laplacian as module
from deepstat.graphs.laplacian import (
    adjacency,
    components,
    conductance,
    fiedler_vector,
    laplacian,
    smoothness,
    spectrum,
    sweep_cut,
)
from helpers import refuses

LECTURE = ((0, 1), (1, 2), (1, 5), (2, 3), (2, 5), (2, 6), (3, 4), (4, 5), (5, 6), (6, 7))  # the lecture's 8 nodes


def both_ways(pairs, weights=None):
    edge_index = torch.tensor(list(pairs), dtype=torch.int64).reshape(-1, 2).T
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    return both if weights is None else (both, torch.cat([weights, weights]))


def random_graph(n, p, seed):
    """A weighted graph, as our tensors and as networkx's."""
    graph = networkx.gnp_random_graph(n, p, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weights = 0.1 + torch.rand(graph.number_of_edges(), generator=generator, dtype=torch.float64)
    for (u, v), weight in zip(graph.edges, weights.tolist(), strict=True):
        graph.edges[u, v]["weight"] = weight
    edge_index, edge_weight = both_ways(graph.edges, weights)
    return graph, edge_index, edge_weight


def sets(n):
    """All sets of nodes with node 0 but the full one: each cut once."""
    for choice in itertools.product([False, True], repeat=n - 1):
        if not all(choice):
            yield torch.tensor([True, *choice])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_matrices_are_those_of_networkx(seed, sparse, device):
    graph, edge_index, edge_weight = random_graph(12, 0.2, seed)  # with isolated nodes: see the next line
    assert seed != 0 or 0 in dict(graph.degree).values()
    edge_index, edge_weight = edge_index.to(device), edge_weight.to(device)
    reference = {
        None: networkx.laplacian_matrix(graph).toarray(),
        "sym": networkx.normalized_laplacian_matrix(graph).toarray(),
    }
    reference["rw"] = csgraph.laplacian(networkx.to_numpy_array(graph), normed=False)
    degree = networkx.to_numpy_array(graph).sum(1)
    reference["rw"] = np.diag([1 / d if d else 0 for d in degree]) @ reference["rw"]
    a = adjacency(edge_index, 12, edge_weight, sparse)
    assert a.is_sparse == sparse
    assert a.device.type == device.type
    np.testing.assert_allclose(a.to_dense().cpu(), networkx.to_numpy_array(graph))
    for normalization, expected in reference.items():
        result = laplacian(edge_index, 12, edge_weight, normalization, sparse)
        assert result.is_sparse == sparse
        np.testing.assert_allclose(result.to_dense().cpu(), expected, atol=1e-12)


def test_adjacency_has_the_source_in_its_rows_and_adds_repeated_edges():
    edge_index = torch.tensor([[0, 1, 3, 3, 0], [3, 0, 1, 2, 3]])
    assert adjacency(edge_index, 4).tolist() == [[0, 0, 0, 2], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]]
    assert adjacency(edge_index, 4, sparse=True).to_dense().tolist() == adjacency(edge_index, 4).tolist()


def test_the_lectures_spectrum_has_a_closed_form():
    eigenvalues, eigenvectors = spectrum(both_ways(LECTURE), 8)
    exact = [0, 2 - 2**0.5, 3 - 5**0.5, 2, 4 - 2**0.5, 2 + 2**0.5, 3 + 5**0.5, 4 + 2**0.5]
    torch.testing.assert_close(eigenvalues, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-12)
    matrix = laplacian(both_ways(LECTURE), 8).double()
    torch.testing.assert_close(matrix @ eigenvectors, eigenvectors * eigenvalues, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_spectra_in_closed_form(n):
    k = torch.arange(n, dtype=torch.float64)
    path = both_ways((i, i + 1) for i in range(n - 1))
    torch.testing.assert_close(spectrum(path, n)[0], 2 - 2 * torch.cos(math.pi * k / n), rtol=0, atol=1e-12)
    complete = both_ways(itertools.combinations(range(n), 2))
    expected = torch.tensor([0.0] + [n] * (n - 1), dtype=torch.float64)
    torch.testing.assert_close(spectrum(complete, n)[0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(spectrum(complete, n, None, "sym")[0], expected / (n - 1), rtol=0, atol=1e-12)
    if n > 2:
        cycle = both_ways((i, (i + 1) % n) for i in range(n))
        expected = (1 - torch.cos(2 * math.pi * k / n)).sort().values
        torch.testing.assert_close(spectrum(cycle, n, None, "sym")[0], expected, rtol=0, atol=1e-12)


def test_self_loops_cancel_in_the_laplacian_and_count_once_in_normalized_forms():
    edges = both_ways(LECTURE)
    looped = torch.cat([edges, torch.arange(8).expand(2, -1)], dim=1)
    torch.testing.assert_close(laplacian(looped, 8), laplacian(edges, 8))
    a = adjacency(edges, 8) + torch.eye(8)
    root = a.sum(1).rsqrt().diag()
    torch.testing.assert_close(laplacian(looped, 8, None, "sym"), torch.eye(8) - root @ a @ root)
    torch.testing.assert_close(laplacian(looped, 8, None, "rw"), torch.eye(8) - a / a.sum(1, keepdim=True))


def test_a_loop_alone_is_not_an_isolated_node():
    loop = torch.tensor([[1], [1]])
    assert laplacian(loop, 2, None, "sym").tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_dtype_is_that_of_the_weights(dtype, device):
    edges = both_ways(LECTURE).to(device)
    weight = torch.full((20,), 2.0, dtype=dtype, device=device)
    for sparse in (False, True):
        assert adjacency(edges, 8, weight, sparse).dtype == dtype
        for normalization in module.NORMALIZATIONS:
            result = laplacian(edges, 8, weight, normalization, sparse)
            assert result.dtype == dtype
            plain = laplacian(edges, 8, None, normalization)
            tolerance = 0.01 if dtype == torch.bfloat16 else 1e-6
            scale = 1 if normalization else 2
            torch.testing.assert_close(result.to_dense().float(), scale * plain, rtol=tolerance, atol=tolerance)


def test_degrees_are_not_summed_in_sixteen_bits():
    star = both_ways((0, i) for i in range(1, 1000))
    result = laplacian(star, 1000, torch.ones(1998, dtype=torch.bfloat16))
    assert result[0, 0] == 1000  # 999 to the three digits of bfloat16; a sum in bfloat16 would stop at 256


@pytest.mark.parametrize("normalization", [None, "sym"])
def test_the_multiplicity_of_zero_is_the_number_of_components(normalization):
    for seed in range(5):
        graph, edge_index, edge_weight = random_graph(15, 0.08, seed)
        label = components(edge_index, 15, edge_weight)
        parts = list(networkx.connected_components(graph))
        assert int(label.max()) + 1 == len(parts)
        assert all(len(label[list(part)].unique()) == 1 for part in parts)
        eigenvalues, _ = spectrum(edge_index, 15, edge_weight, normalization)
        assert (eigenvalues.abs() < 1e-10).sum() == len(parts)


def test_components_do_not_ask_for_both_directions_and_skip_edges_of_weight_zero(device):
    edge_index = torch.tensor([[0, 2], [1, 1]], device=device)
    assert components(edge_index, 4).tolist() == [0, 0, 0, 1]
    weight = torch.tensor([1.0, 0.0], device=device)
    label = components(edge_index, 4, weight)
    assert label.tolist() == [0, 0, 1, 2]
    assert label.device.type == device.type


@pytest.mark.parametrize(("weighted", "errors"), [(False, [2, 8]), (True, [8])])
@pytest.mark.parametrize("normalization", [None, "sym"])
def test_fiedler_vector_of_the_karate_club(weighted, errors, normalization, device):
    club = graphs.karate_club()
    weight = club.edge_weight.to(device) if weighted else None
    vector = fiedler_vector(club.edge_index.to(device), 34, weight, normalization).cpu()
    side = (vector > 0).long()
    wrong = (side != club.y).nonzero()[:, 0].tolist()
    assert wrong in (errors, [i for i in range(34) if i not in errors])
    assert vector.abs().min() > 1e-3  # no sign is decided by rounding
    assert vector.norm().item() == pytest.approx(1)


@pytest.mark.parametrize("normalization", [None, "sym"])
def test_fiedler_vector_is_the_minimizer(normalization):
    for seed in range(4):
        graph, edge_index, edge_weight = random_graph(10, 0.5, seed)
        assert networkx.is_connected(graph)
        x = fiedler_vector(edge_index, 10, edge_weight, normalization)
        a = adjacency(edge_index, 10, edge_weight)
        mass = a.sum(1) if normalization else torch.ones(10, dtype=torch.float64)
        quotient = smoothness(x, edge_index, edge_weight) / (mass * x * x).sum()
        torch.testing.assert_close(quotient, spectrum(edge_index, 10, edge_weight, normalization)[0][1])
        assert abs((mass * x).sum()) < 1e-10
        generalized = laplacian(edge_index, 10, edge_weight) @ x - quotient * mass * x
        assert generalized.abs().max() < 1e-10
        assert x[x.abs().argmax()] > 0


def test_the_sign_of_a_fiedler_vector_does_not_hang_on_rounding():
    # the lecture's graph looks the same from both ends: entries 0 and 7 are opposite and largest
    vector = fiedler_vector(both_ways(LECTURE), 8)
    assert vector[0] > 0
    torch.testing.assert_close(vector, -vector.flip(0), rtol=0, atol=1e-12)
    assert vector[2:6].abs().max() < 1e-12


def test_smoothness_is_the_quadratic_form(device):
    for seed in range(3):
        _, edge_index, edge_weight = random_graph(9, 0.4, seed)
        edge_index, edge_weight = edge_index.to(device), edge_weight.to(device)
        x = torch.randn(9, 2, 3, dtype=torch.float64, device=device)
        matrix = laplacian(edge_index, 9, edge_weight)
        expected = torch.einsum("uij,uv,vij->ij", x, matrix, x)
        torch.testing.assert_close(smoothness(x, edge_index, edge_weight), expected)
        torch.testing.assert_close(smoothness(x[:, 0, 0], edge_index, edge_weight), expected[0, 0])


def test_smoothness_has_the_gradient_of_a_quadratic_form():
    _, edge_index, edge_weight = random_graph(9, 0.4, 0)
    x = torch.randn(9, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(smoothness(x, edge_index, edge_weight), x)
    torch.testing.assert_close(gradient, 2 * laplacian(edge_index, 9, edge_weight) @ x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smoothness_compiles_and_runs_in_small_dtypes(dtype, device, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks of shapes cannot be traced
    edges = both_ways(LECTURE).to(device)
    x = torch.arange(8, device=device).to(dtype)[:, None]
    compiled = torch.compile(smoothness, backend="eager", fullgraph=True)
    assert smoothness(x, edges).item() == 1 + 1 + 16 + 1 + 9 + 16 + 1 + 1 + 1 + 1
    assert smoothness(x, edges).dtype == dtype
    torch.testing.assert_close(compiled(x, edges), smoothness(x, edges))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert smoothness(x, edges).item() == 48


@pytest.mark.slow
def test_conductance_is_networkxs_and_cheegers_inequality_holds():
    for seed in range(4):
        graph, edge_index, edge_weight = random_graph(8, 0.5, seed)
        assert networkx.is_connected(graph)
        best = math.inf
        for members in sets(8):
            value = conductance(members, edge_index, edge_weight).item()
            chosen = members.nonzero()[:, 0].tolist()
            assert value == pytest.approx(networkx.conductance(graph, chosen, weight="weight"))
            assert value == pytest.approx(conductance(~members, edge_index, edge_weight).item())
            best = min(best, value)
        second = spectrum(edge_index, 8, edge_weight, "sym")[0][1].item()
        found, value = sweep_cut(fiedler_vector(edge_index, 8, edge_weight, "sym"), edge_index, edge_weight)
        assert second / 2 <= best <= value.item() <= (2 * second) ** 0.5
        assert value == conductance(found, edge_index, edge_weight)


def test_conductance_of_a_cycle_counts_each_edge_once():
    cycle = both_ways((i, (i + 1) % 6) for i in range(6))
    assert conductance(torch.arange(6) < 3, cycle).item() == pytest.approx(2 / 6)
    assert conductance(torch.arange(6) < 1, cycle).item() == 1


def test_sweep_cut_takes_the_best_level_set():
    edges = both_ways(LECTURE)
    x = torch.tensor([3.0, 1.0, 2.0, 2.0, -1.0, 0.0, 0.5, 0.5])
    levels = [x >= level for level in (3.0, 2.0, 1.0, 0.5, 0.0)]
    values = [conductance(members, edges).item() for members in levels]
    members, value = sweep_cut(x, edges)
    assert value.item() == min(values)
    assert torch.equal(members, levels[int(np.argmin(values))])


def test_sweep_cut_looks_at_the_smallest_level_set_too():
    triangles = both_ways([(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5)])
    members, value = sweep_cut(torch.tensor([2.0, 2.0, 2.0, 1.0, 0.0, 0.0]), triangles)
    assert members.tolist() == [True] * 3 + [False] * 3
    assert value.item() == pytest.approx(1 / 7)


@pytest.mark.parametrize("sparse", [False, True])
def test_empty_graphs(sparse):
    none = torch.empty(2, 0, dtype=torch.int64)
    for nodes in (0, 3):
        for normalization in module.NORMALIZATIONS:
            result = laplacian(none, nodes, None, normalization, sparse).to_dense()
            assert result.shape == (nodes, nodes)
            assert result.count_nonzero() == 0
        assert components(none, nodes).tolist() == list(range(nodes))
        assert spectrum(none, nodes)[0].tolist() == [0.0] * nodes
        assert smoothness(torch.ones(nodes), none).item() == 0


def test_a_graph_too_large_for_a_dense_matrix():
    n = 200_000
    ring = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    ring = torch.cat([ring, ring.flip(0)], dim=1)
    matrix = laplacian(ring, n, None, "sym", sparse=True)
    assert matrix._nnz() == 3 * n
    x = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    quadratic = (x * (laplacian(ring, n, sparse=True).double() @ x)).sum()
    torch.testing.assert_close(quadratic, smoothness(x, ring))


@pytest.mark.parametrize("function", [adjacency, laplacian, spectrum, components, fiedler_vector])
def test_bad_input_is_refused(function):
    edges = both_ways(LECTURE)
    with refuses(TypeError, "edge_index must be a tensor of int64, got torch.float32"):
        function(edges.float(), 8)
    with refuses(ValueError, "edge_index must have shape"):
        function(edges.T, 8)
    with refuses(ValueError, "edge_index must be between 0 and 6, got entries from 0 to 7"):
        function(edges, 7)
    with refuses(TypeError, "nodes must be an integer, got float"):
        function(edges, 8.0)
    with refuses(TypeError, "nodes must be an integer, got bool"):
        function(edges, True)
    with refuses(ValueError, "nodes must not be negative, got -1"):
        function(edges, -1)
    with refuses(TypeError, "edge_weight must hold floating point numbers, got torch.int64"):
        function(edges, 8, torch.ones(20, dtype=torch.int64))
    with refuses(ValueError, r"edge_weight must have shape \(20,\), got \(10,\)"):
        function(edges, 8, torch.ones(10))
    for bad in (-1.0, math.nan, math.inf):
        with refuses(ValueError, "edge_weight must be finite and not negative"):
            function(edges, 8, torch.full((20,), bad))


def test_directed_graphs_are_refused_by_the_laplacian():
    for sparse in (False, True):
        with refuses(ValueError, "got a directed graph"):
            laplacian(torch.tensor([[0, 1], [1, 2]]), 3, sparse=sparse)
    with refuses(ValueError, "got a directed graph"):
        laplacian(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([1.0, 2.0]))


def test_other_bad_input_is_refused():
    edges = both_ways(LECTURE)
    with refuses(ValueError, r"normalization must be one of .*, got 'symmetric'"):
        laplacian(edges, 8, None, "symmetric")
    with refuses(ValueError, "got 'rw', which is not symmetric"):
        spectrum(edges, 8, None, "rw")
    with refuses(ValueError, "nodes must be at least 2, got 1"):
        fiedler_vector(torch.empty(2, 0, dtype=torch.int64), 1)
    with refuses(ValueError, "connected graph, got 2 components"):
        fiedler_vector(edges, 9)
    with refuses(ValueError, "simple second eigenvalue"):
        fiedler_vector(both_ways((i, (i + 1) % 4) for i in range(4)), 4)
    with refuses(ValueError, "edge_weight must have shape"):
        smoothness(torch.ones(8), edges, torch.ones(3))
    with refuses(ValueError, "got a volume of 0"):
        conductance(torch.ones(8, dtype=torch.bool), edges)
    with refuses(ValueError, "x must have two different values"):
        sweep_cut(torch.ones(8), edges)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_pytorch_geometric_agrees_but_for_isolated_nodes_and_loops():
    from torch_geometric.utils import get_laplacian, to_dense_adj  # here, because its import warns

    edges = both_ways(LECTURE)
    for normalization in module.NORMALIZATIONS:
        index, weight = get_laplacian(edges, None, normalization, num_nodes=8)
        theirs = to_dense_adj(index, None, weight)[0]
        torch.testing.assert_close(theirs, laplacian(edges, 8, None, normalization))
        index, weight = get_laplacian(edges, None, normalization, num_nodes=9)
        assert to_dense_adj(index, None, weight)[0, 8, 8] == (1 if normalization else 0)
        assert laplacian(edges, 9, None, normalization)[8, 8] == 0
