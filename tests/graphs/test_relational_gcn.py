import jaxtyping
import pytest
import torch

from deepstat.graphs.message_passing import aggregate
from deepstat.graphs.relational_gcn import RelationalGCNConv
from helpers import refuses

EDGES = torch.tensor([[0, 1, 3, 1, 3, 4, 0], [1, 0, 1, 3, 3, 3, 1]])  # node 2 isolated, a loop at 3, 0 -> 1 twice
TYPES = torch.tensor([0, 2, 2, 0, 1, 0, 0])
with_bases = pytest.mark.parametrize("bases", [None, 2])


def made(bases, inputs=4, outputs=3, dtype=torch.float64):
    torch.manual_seed(0)
    layer = RelationalGCNConv(inputs, outputs, 3, bases).to(dtype)
    torch.nn.init.normal_(layer.own.bias)
    return layer


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@with_bases
def test_the_layer_is_that_of_pytorch_geometric(bases, generator, device):
    from torch_geometric.nn import RGCNConv  # here, because its import warns

    ours = made(bases, dtype=torch.float32).to(device)
    theirs = RGCNConv(4, 3, 3, num_bases=bases).to(device)
    state = {"weight": ours.matrices.mT, "root": ours.own.weight.T, "bias": ours.own.bias}
    theirs.load_state_dict(state | ({} if bases is None else {"comp": ours.shares}))
    many = torch.randint(50, (2, 400), generator=generator), torch.randint(3, (400,), generator=generator)
    for edges, types, nodes in ((EDGES, TYPES, 5), (*many, 60)):
        x = torch.randn(nodes, 4, generator=generator).to(device).requires_grad_()
        edges, types = edges.to(device), types.to(device)
        y, z = ours(x, edges, types), theirs(x, edges, types)
        torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
        gradients = [torch.autograd.grad(value.square().sum(), x)[0] for value in (y, z)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@with_bases
def test_the_formula_relation_by_relation(bases, generator):
    layer = made(bases)
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    expected = x @ layer.own.weight.T + layer.own.bias
    for relation in range(3):
        edges = EDGES[:, TYPES == relation]
        weight = layer.matrices[relation] if bases is None else sum(
            layer.shares[relation, b] * layer.matrices[b] for b in range(bases))
        expected = expected + aggregate(x[edges[0]], edges[1], 5, "mean") @ weight.T
    torch.testing.assert_close(layer(x, EDGES, TYPES), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(layer(x, EDGES, TYPES)[2], layer.own(x)[2])  # the isolated node


@with_bases
def test_equivariant_and_relations_matter(bases, generator):
    layer = made(bases)
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    y = layer(x, EDGES, TYPES)
    place, order = torch.randperm(5, generator=generator), torch.randperm(7, generator=generator)
    moved = torch.empty_like(x)
    moved[place] = x
    torch.testing.assert_close(layer(moved, place[EDGES[:, order]], TYPES[order])[place], y, rtol=1e-12, atol=1e-13)
    other = TYPES.clone()
    other[3] = 1  # of the edge 1 -> 3
    changed = (layer(x, EDGES, other) - y).abs().amax(1) > 1e-6
    assert changed.tolist() == [False, False, False, True, False]


def test_parameters_are_counted():
    assert sum(p.numel() for p in RelationalGCNConv(16, 8, 10).parameters()) == 16 * 8 + 8 + 10 * 16 * 8
    assert sum(p.numel() for p in RelationalGCNConv(16, 8, 10, 2).parameters()) == 16 * 8 + 8 + 2 * 16 * 8 + 10 * 2


@pytest.mark.slow
@with_bases
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_dtypes_gradients_compiled_and_empty(bases, dtype, generator, device, monkeypatch):
    layer = made(bases, dtype=dtype).to(device)
    x, edges, types = torch.randn(5, 4, generator=generator).to(device, dtype), EDGES.to(device), TYPES.to(device)
    y = layer(x, edges, types)
    assert y.dtype == dtype
    y.float().square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x, edges, types), y)
    torch.testing.assert_close(layer(x, edges[:, :0], types[:0]), layer.own(x))
    assert layer(x[:0], edges[:, :0], types[:0]).shape == (0, 3)


@pytest.mark.slow
@with_bases
def test_it_fits_a_batch(bases, generator):
    layer = made(bases, 8, 4, torch.float32)
    head = made(bases, 4, 4, torch.float32)
    x, y = torch.randn(5, 8, generator=generator), torch.randn(5, 4, generator=generator)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (head(torch.tanh(layer(x, EDGES, TYPES)), EDGES, TYPES) - y).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_bad_input_is_refused():
    layer, x = made(None, dtype=torch.float32), torch.zeros(5, 4)
    cases = (
        ((x[:, :3], EDGES, TYPES), ValueError, r"x must have shape \(rows, 4\), got \(5, 3\)"),
        ((x[:4], EDGES, TYPES), ValueError, "edge_index must be between 0 and 3"),
        ((x, EDGES, TYPES[:5]), ValueError, r"edge_type must have shape \(7,\), one relation an edge, got \(5,\)"),
        ((x, EDGES, TYPES.int()), TypeError, "edge_type must be a tensor of int64, got torch.int32"),
        ((x, EDGES, TYPES.tolist()), TypeError, "edge_type must be a tensor of int64, got list"),
        ((x, EDGES, TYPES + 1), ValueError, "edge_type must be between 0 and 2, got entries from 1 to 3"),
        ((x, EDGES, TYPES - 1), ValueError, "edge_type must be between 0 and 2, got entries from -1 to 1"),
    )
    for arguments, error, message in cases:
        with refuses(error, message):
            layer(*arguments)
    with refuses(ValueError, "relations must be at least 1, got 0"):
        RelationalGCNConv(3, 4, 0)
    with refuses(ValueError, "bases must be at least 1, got 0"):
        RelationalGCNConv(3, 4, 2, 0)
    with refuses(TypeError, "bases must be an integer, got float"):
        RelationalGCNConv(3, 4, 2, 1.0)
