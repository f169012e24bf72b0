import pytest
import torch

from deepstat.graphs.graphsage import SAGEConv
from helpers import refuses

EDGES = torch.tensor([[0, 1, 3, 1, 3, 4], [1, 0, 1, 3, 3, 3]])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("reduce", ["mean", "max", "sum"])
def test_the_layer_is_that_of_pytorch_geometric(reduce, generator, device):
    from torch_geometric import nn  # here, because its import warns

    ours = SAGEConv(4, 3, reduce).to(device)
    theirs = nn.SAGEConv(4, 3, aggr=reduce).to(device)
    state = {"lin_l.weight": ours.neighbours.weight, "lin_l.bias": ours.neighbours.bias, "lin_r.weight": ours.itself.weight}
    theirs.load_state_dict(state)
    for edges, nodes in ((EDGES, 5), (torch.randint(50, (2, 400), generator=generator), 60)):
        x = torch.randn(nodes, 4, generator=generator).to(device).requires_grad_()
        y, z = ours(x, edges.to(device)), theirs(x, edges.to(device))
        torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
        gradients = [torch.autograd.grad(value.square().sum(), x)[0] for value in (y, z)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_the_matrix_form(reduce, generator):
    layer = SAGEConv(4, 3, reduce).double()
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    a = torch.zeros(5, 5, dtype=torch.float64)
    a[EDGES[1], EDGES[0]] = 1
    if reduce == "mean":
        a = a / a.sum(1, keepdim=True).clamp(min=1)
    expected = x @ layer.itself.weight.T + a @ x @ layer.neighbours.weight.T + layer.neighbours.bias
    torch.testing.assert_close(layer(x, EDGES), expected, rtol=1e-12, atol=1e-13)


def test_an_unknown_reduction_is_refused():
    with refuses(ValueError, "reduce must be one of sum, mean, max, got 'lstm'"):
        SAGEConv(4, 3, "lstm")
