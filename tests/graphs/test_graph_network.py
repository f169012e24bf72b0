import jaxtyping
import pytest
import torch

from deepstat.graphs.graph_network import GraphNetwork
from helpers import refuses

EDGES = torch.tensor([[0, 2, 2, 4, 1, 1], [2, 0, 4, 2, 3, 1]])  # graph 0: nodes 0, 2, 4; graph 1: nodes 1, 3, 5
BATCH = torch.tensor([0, 1, 0, 1, 0, 1])  # not sorted; node 5 isolated; graph 2 has no nodes


def made(dtype=torch.float64):
    torch.manual_seed(0)
    return GraphNetwork(node=3, edge=2, graph=4, hidden=8).to(dtype)


def inputs(generator, dtype=torch.float64):
    x, edge_attr, u = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((6, 3), (6, 2), (3, 4)))
    return x, EDGES, edge_attr, u, BATCH


def test_the_three_updates_one_by_one(generator):
    block = made()
    x, _, edge_attr, u, _ = inputs(generator)
    new_x, new_edges, new_u = block(x, EDGES, edge_attr, u, BATCH)
    for e, (s, t) in enumerate(EDGES.T.tolist()):
        expected = block.update_edge(torch.cat([edge_attr[e], x[s], x[t], u[BATCH[t]]]))
        torch.testing.assert_close(new_edges[e], expected)
    for v in range(6):
        m = new_edges[EDGES[1] == v].sum(0)
        torch.testing.assert_close(new_x[v], block.update_node(torch.cat([x[v], m, u[BATCH[v]]])))
    for g in range(3):
        sums = new_x[BATCH == g].sum(0), new_edges[BATCH[EDGES[1]] == g].sum(0)
        torch.testing.assert_close(new_u[g], block.update_graph(torch.cat([u[g], *sums])))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_pytorch_geometrics_meta_layer_with_the_same_updates(generator):
    from torch_geometric.nn import MetaLayer  # here, because its import warns
    from torch_geometric.utils import scatter

    block = made()
    cat = torch.cat
    theirs = MetaLayer(
        _Update(lambda s, t, e, u, b: block.update_edge(cat([e, s, t, u[b]], 1))),
        _Update(lambda x, i, e, u, b: block.update_node(cat([x, scatter(e, i[1], 0, len(x)), u[b]], 1))),
        _Update(lambda x, i, e, u, b: block.update_graph(
            cat([u, scatter(x, b, 0, len(u)), scatter(e, b[i[1]], 0, len(u))], 1)
        )),
    )
    arguments = inputs(generator)
    torch.testing.assert_close(block(*arguments), theirs(*arguments))


class _Update(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def test_nodes_and_edges_are_equivariant_and_graphs_invariant(generator, device):
    block = made().to(device)
    x, edges, edge_attr, u, batch = (t.to(device) for t in inputs(generator))
    before = block(x, edges, edge_attr, u, batch)
    place, order = torch.randperm(6, generator=generator).to(device), torch.randperm(6, generator=generator).to(device)
    moved, homes = torch.empty_like(x), torch.empty_like(batch)
    moved[place], homes[place] = x, batch
    after = block(moved, place[edges[:, order]], edge_attr[order], u, homes)
    for was, now in zip((before[0], before[1][order], before[2]), (after[0][place], *after[1:]), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-12, atol=1e-12)


def test_graphs_of_a_batch_do_not_touch(generator):
    block = made()
    x, _, edge_attr, u, _ = inputs(generator)
    changed = x.clone()
    changed[BATCH == 1] += 1
    before, after = block(x, EDGES, edge_attr, u, BATCH), block(changed, EDGES, edge_attr, u, BATCH)
    assert torch.equal(before[0][BATCH == 0], after[0][BATCH == 0])
    assert torch.equal(before[2][[0, 2]], after[2][[0, 2]])
    assert not torch.equal(before[2][1], after[2][1])


@pytest.mark.slow
def test_dtypes_gradients_compilation_and_empty_graphs(generator, device, monkeypatch):
    block = made(torch.float32).to(device)
    arguments = [t.to(device) for t in inputs(generator, torch.float32)]
    sum(part.sum() for part in block(*arguments)).backward()
    assert all(p.grad.abs().max() > 0 for p in block.parameters())
    for nodes in (0, 2):
        none = torch.zeros(2, 0, dtype=torch.int64, device=device)
        zeros = [torch.zeros(size, device=device) for size in ((nodes, 3), (0, 2), (1, 4))]
        found = block(zeros[0], none, *zeros[1:], torch.zeros(nodes, dtype=torch.int64, device=device))
        assert [tuple(part.shape) for part in found] == [(nodes, 3), (0, 2), (1, 4)]
    expected = block(*arguments)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(*arguments), expected)
    small = block.bfloat16()(*[t.bfloat16() if t.is_floating_point() else t for t in arguments])
    for part, wide in zip(small, expected, strict=True):
        assert part.dtype == torch.bfloat16
        assert (part.float() - wide).abs().max() < 0.1


@pytest.mark.slow
def test_it_fits_one_batch(generator):
    """A target of each level, from all three kinds of features."""
    torch.manual_seed(0)
    block = GraphNetwork(3, 2, 4, hidden=32)
    arguments = inputs(generator, torch.float32)
    targets = [torch.randn(part.shape, generator=generator) for part in block(*arguments)]
    optimizer = torch.optim.Adam(block.parameters(), 0.01)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = sum((part - y).square().mean() for part, y in zip(block(*arguments), targets, strict=True))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_bad_input_is_refused(generator):
    block = made()
    x, edges, edge_attr, u, batch = inputs(generator)
    cases = (
        ((x[:, :2], edges, edge_attr, u, batch), ValueError, r"x must have shape \(rows, 3\), got \(6, 2\)"),
        ((x, edges, edge_attr[:, :1], u, batch), ValueError, r"edge_attr must have shape \(rows, 2\), got \(6, 1\)"),
        ((x, edges, edge_attr, u.long(), batch), TypeError, "u must be a floating point tensor"),
        ((x, edges + 2, edge_attr, u, batch), ValueError, "edge_index must be between 0 and 5"),
        ((x, edges, edge_attr[:5], u, batch), ValueError, "edge_attr must have 6 rows, one for each edge, got 5"),
        ((x, edges, edge_attr, u, batch.float()), TypeError, "batch must be a tensor of int64, got torch.float32"),
        ((x, edges, edge_attr, u, batch[:5]), ValueError, r"batch must have shape \(6,\), the graph of each node, got \(5,\)"),
        ((x, edges, edge_attr, u, batch + 2), ValueError, "batch must be between 0 and 2, for u has 3 rows, got 2 to 3"),
        ((x, edges, edge_attr, u, batch.sort().values), ValueError, "between two graphs"),
    )
    for arguments, error, message in cases:
        with refuses(error, message):
            block(*arguments)
    with refuses(ValueError, "hidden must be at least 1, got 0"):
        GraphNetwork(3, 2, 4, hidden=0)
