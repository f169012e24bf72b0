import pytest
import torch
from torch.nn import functional

from deepstat.graphs.gat import GATConv, GATv2Conv
from deepstat.graphs.message_passing import add_self_loops
from helpers import refuses

EDGES = torch.tensor([[0, 1, 3, 1, 3, 4], [1, 0, 1, 3, 3, 3]])  # node 2 isolated, a loop at 3
BOTH = pytest.mark.parametrize("kind", [GATConv, GATv2Conv])


def peer(ours, version):
    from torch_geometric import nn  # here, because its import warns

    arguments = ours.inputs, ours.outputs, ours.heads
    heads = (1, ours.heads, ours.outputs)
    if version == 1:
        theirs = nn.GATConv(*arguments)
        state = {"lin.weight": ours.linear.weight, "att_src": ours.source.view(heads), "att_dst": ours.target.view(heads)}
    else:
        theirs = nn.GATv2Conv(*arguments)
        state = {"att": ours.score.view(heads), "lin_l.weight": ours.source.weight, "lin_l.bias": ours.source.bias}
        state |= {"lin_r.weight": ours.target.weight, "lin_r.bias": ours.target.bias}
    theirs.load_state_dict(state | {"bias": ours.bias})
    return theirs


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("kind", "version"), [(GATConv, 1), (GATv2Conv, 2)])
def test_the_layer_is_that_of_pytorch_geometric(kind, version, generator, device):
    ours = kind(4, 3, heads=2)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    theirs = peer(ours, version).to(device)
    ours = ours.to(device)
    for edges, nodes in ((EDGES, 5), (torch.randint(50, (2, 400), generator=generator), 60)):
        x = torch.randn(nodes, 4, generator=generator).to(device).requires_grad_()
        y, z = ours(x, edges.to(device)), theirs(x, edges.to(device))
        torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-5)
        gradients = [torch.autograd.grad(value.square().sum(), x)[0] for value in (y, z)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@BOTH
def test_the_formula_node_by_node(kind, generator):
    layer = kind(4, 3, heads=2).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    y = layer(x, EDGES).view(5, 2, 3)
    source, target = add_self_loops(EDGES, 5)
    for v in range(5):
        around = source[target == v]
        for head in range(2):
            rows = slice(3 * head, 3 * head + 3)
            if kind is GATConv:
                values = x @ layer.linear.weight[rows].T
                z = values[around] @ layer.source[head] + values[v] @ layer.target[head]
                score = functional.leaky_relu(z, 0.2)
            else:
                values = x @ layer.source.weight[rows].T + layer.source.bias[rows]
                z = values[around] + x[v] @ layer.target.weight[rows].T + layer.target.bias[rows]
                score = functional.leaky_relu(z, 0.2) @ layer.score[head]
            expected = score.softmax(0) @ values[around] + layer.bias[rows]
            torch.testing.assert_close(y[v, head], expected, rtol=1e-12, atol=1e-13)


@BOTH
def test_attention_adds_up_to_one_and_an_old_loop_has_none(kind, generator):
    layer = kind(4, 3, heads=2).double()
    weights = layer.attention(torch.randn(5, 4, dtype=torch.float64, generator=generator), EDGES)
    assert weights.shape == (6 + 5, 2)
    targets = torch.cat([EDGES[1], torch.arange(5)])
    total = torch.zeros(5, 2, dtype=torch.float64).index_add(0, targets, weights)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)
    assert (weights[4] == 0).all()  # the loop 3 -> 3
    assert (weights[6 + 2] == 1).all()  # the isolated node attends to itself


@pytest.mark.parametrize(("kind", "orders"), [(GATConv, 1), (GATv2Conv, 2)])
def test_only_the_second_version_can_rank_by_the_target(kind, orders, generator):
    """Brody, Alon and Yahav's theorem 1: with the first, all targets rank all sources alike, for any parameters."""
    source, target = torch.cartesian_prod(torch.arange(6), torch.arange(6, 12)).T
    edges = torch.stack([source, target])
    most = 0
    for _ in range(20):
        layer = kind(4, 8)
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
        x = torch.randn(12, 4, generator=generator)
        values, scores = layer.values_and_scores(x, *edges)
        table = scores.view(6, 6)  # (source, target)
        most = max(most, len({tuple(column.argsort().tolist()) for column in table.T}))
    assert (most == 1) == (orders == 1)


@BOTH
def test_bad_sizes_are_refused(kind):
    with refuses(ValueError, "heads must be at least 1, got 0"):
        kind(4, 3, heads=0)
