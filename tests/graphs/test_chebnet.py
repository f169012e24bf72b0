import pytest
import torch

from deepstat.graphs.chebnet import ChebConv
from helpers import refuses

UPPER = torch.tensor([[0, 0, 1, 3, 4, 4], [1, 2, 2, 4, 5, 6]])
EDGES = torch.cat([UPPER, UPPER.flip(0)], dim=1)  # a triangle, a star, node 7 isolated


def scaled_laplacian(edges, nodes):
    a = torch.zeros(nodes, nodes, dtype=torch.float64)
    a[edges[1], edges[0]] = 1
    a.fill_diagonal_(0)
    root = a.sum(1).clamp(min=1).rsqrt()
    return -root[:, None] * a * root


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_filter_by_eigenvalues(order, generator):
    """Another route: T_k(cos t) = cos(kt) on the spectrum."""
    layer = ChebConv(3, 2, order).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    values, vectors = torch.linalg.eigh(scaled_laplacian(EDGES, 8))
    angle = values.clamp(-1, 1).acos()
    expected = layer.bias + sum(
        vectors @ ((k * angle).cos()[:, None] * (vectors.T @ x)) @ linear.weight.T for k, linear in enumerate(layer.linears)
    )
    torch.testing.assert_close(layer(x, EDGES), expected, rtol=1e-10, atol=1e-10)
    looped = torch.cat([EDGES, torch.tensor([[0, 7], [0, 7]])], dim=1)
    torch.testing.assert_close(layer(x, looped), layer(x, EDGES), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_the_layer_is_that_of_pytorch_geometric(generator, device):
    from torch_geometric import nn  # here, because its import warns

    ours = ChebConv(3, 2, 3)
    theirs = nn.ChebConv(3, 2, K=4)
    theirs.load_state_dict({f"lins.{k}.weight": linear.weight for k, linear in enumerate(ours.linears)} | {"bias": ours.bias})
    x = torch.randn(7, 3, generator=generator).to(device)  # PyG's isolated nodes have an eigenvalue of their own
    edges = EDGES.to(device)
    torch.testing.assert_close(ours.to(device)(x, edges), theirs.to(device)(x, edges), rtol=1e-5, atol=1e-5)


def test_a_node_sees_as_far_as_the_order(generator):
    """On a path, an impulse at one end reaches exactly ``order`` nodes further."""
    line = torch.arange(9)
    path = torch.stack([torch.cat([line[:-1], line[1:]]), torch.cat([line[1:], line[:-1]])])
    x = torch.zeros(9, 1)
    x[0] = 1
    for order in (1, 2, 4):
        layer = ChebConv(1, 1, order)
        reached = (layer(x, path) - layer(0 * x, path)).abs()[:, 0] > 1e-7
        assert reached.nonzero().max() == order


def test_bad_orders_are_refused():
    with refuses(ValueError, "order must be at least 1, got 0"):
        ChebConv(3, 2, 0)
