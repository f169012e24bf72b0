import pytest
import torch

from deepstat.graphs.gcn import GCNConv, propagate
from deepstat.graphs.message_passing import add_self_loops

EDGES = torch.tensor([[0, 1, 3, 1, 3, 4], [1, 0, 1, 3, 3, 3]])  # node 2 isolated, a loop at 3, 4 -> 3 one way


def dense(edges, nodes, dtype=torch.float64):
    """The matrix of the operator: rows are targets."""
    a = torch.zeros(nodes, nodes, dtype=dtype)
    a.index_put_((edges[1], edges[0]), torch.ones(edges.shape[1], dtype=dtype), accumulate=True)
    a = a - a.diagonal().diag() + torch.eye(nodes, dtype=dtype)
    root = a.sum(1).rsqrt()
    return root[:, None] * a * root


def test_propagation_is_the_dense_matrix(generator):
    for edges, nodes in ((EDGES, 5), (torch.randint(50, (2, 400), generator=generator), 60)):  # with repeated edges
        x = torch.randn(nodes, 3, dtype=torch.float64, generator=generator)
        torch.testing.assert_close(propagate(x, edges), dense(edges, nodes) @ x, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(propagate(x, add_self_loops(edges, nodes)), propagate(x, edges), rtol=1e-12, atol=1e-13)


def test_known_numbers():
    """A path of three nodes: degrees with loops 2, 3, 2."""
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    matrix = propagate(torch.eye(3, dtype=torch.float64), path)
    expected = torch.tensor([[1 / 2, 6**-0.5, 0], [6**-0.5, 1 / 3, 6**-0.5], [0, 6**-0.5, 1 / 2]], dtype=torch.float64)
    torch.testing.assert_close(matrix, expected, rtol=1e-14, atol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_the_layer_is_that_of_pytorch_geometric_and_the_dense_formula(generator, device):
    from torch_geometric import nn  # here, because its import warns

    for edges, nodes in ((EDGES, 5), (torch.randint(300, (2, 3000), generator=generator), 310)):
        edges = edges.to(device)
        x = torch.randn(nodes, 16, generator=generator).to(device).requires_grad_()
        ours, theirs = GCNConv(16, 8).to(device), nn.GCNConv(16, 8).to(device)
        torch.nn.init.normal_(ours.bias)
        theirs.load_state_dict({"lin.weight": ours.linear.weight, "bias": ours.bias})
        y, z = ours(x, edges), theirs(x, edges)
        torch.testing.assert_close(y, z, rtol=0, atol=1e-6)
        by_matrix = dense(edges.cpu(), nodes, torch.float32).to(device) @ x @ ours.linear.weight.T + ours.bias
        torch.testing.assert_close(y, by_matrix, rtol=0, atol=1e-6)
        ys = torch.autograd.grad(y.square().sum(), (x, ours.linear.weight, ours.bias))
        zs = torch.autograd.grad(z.square().sum(), (x, theirs.lin.weight, theirs.bias))
        torch.testing.assert_close(ys, zs, rtol=1e-4, atol=1e-4)


def test_high_degrees_in_bfloat16():
    """A star of 1,000 leaves: counting its centre's degree in bfloat16 would stop at 256."""
    leaves = torch.arange(1, 1001)
    star = torch.stack([leaves, torch.zeros_like(leaves)])
    x = torch.ones(1001, 1, dtype=torch.float64)
    found = propagate(x.bfloat16(), star)[0].item()
    assert found == pytest.approx(propagate(x, star)[0].item(), rel=0.02)


def test_gradients_are_numerical_ones(generator):
    x = torch.randn(5, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(x, EDGES), x)
