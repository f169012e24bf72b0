import jaxtyping
import pytest
import torch

from deepstat.graphs.diffpool import DiffPool, diff_pool, propagate
from helpers import refuses


def batch(generator, graphs=3, nodes=7, features=4, dtype=torch.float64):
    """Symmetric graphs of 7, 4 and 0 nodes in one padded batch."""
    upper = (torch.rand(graphs, nodes, nodes, generator=generator) < 0.4).to(dtype).triu(1)
    mask = torch.arange(nodes) < torch.tensor([7, 4, 0])[:graphs, None]
    x = torch.randn(graphs, nodes, features, dtype=dtype, generator=generator)
    return x, (upper + upper.mT) * (mask[:, None] & mask[:, :, None]), mask


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_it_is_that_of_pytorch_geometric(generator, device):
    from torch_geometric.nn.dense import dense_diff_pool  # here, because its import warns

    x, a, mask = (t.to(device) for t in batch(generator))
    logits = torch.randn(3, 7, 2, dtype=x.dtype, generator=generator).to(device)
    whole = diff_pool(x, a, logits, mask)
    for graph, size in ((0, 7), (1, 4)):
        parts = x[graph, :size], a[graph, :size, :size], logits[graph, :size]
        features, coarse, link, entropy = dense_diff_pool(*parts, normalize=False)
        ours = diff_pool(*parts)
        for mine in (ours, type(ours)(*(value[graph] for value in whole))):
            torch.testing.assert_close(mine.x, features[0], rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(mine.adjacency, coarse[0], rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(mine.link_loss, link, rtol=1e-12, atol=0)
            torch.testing.assert_close(mine.entropy, entropy, rtol=1e-9, atol=1e-13)
    assert whole.x.shape == (3, 2, 4)
    assert (whole.assignment[1, 4:] == 0).all()
    for value in whole:
        assert (value[2] == 0).all()  # the graph without nodes


def test_a_hard_partition_counts_edges():
    """Two triangles with a bridge: inside each cluster every edge counts twice, between them once each way."""
    a = torch.block_diag(1 - torch.eye(3), 1 - torch.eye(3))
    a[2, 3] = a[3, 2] = 1
    logits = 100 * torch.tensor([[1.0, 0]] * 3 + [[0, 1.0]] * 3)
    coarse = diff_pool(torch.ones(6, 1), a, logits)
    assert coarse.adjacency.tolist() == [[6, 1], [1, 6]]
    assert coarse.x.tolist() == [[3], [3]]
    assert coarse.link_loss.item() == pytest.approx((6 + 2) ** 0.5)  # the diagonal and the bridge
    assert coarse.entropy.item() == pytest.approx(0, abs=1e-6)
    even = diff_pool(torch.ones(6, 1), a, torch.zeros(6, 4))
    assert even.entropy.item() == pytest.approx(torch.tensor(4.0).log().item())
    assert even.adjacency.sum().item() == pytest.approx(a.sum().item())


def test_propagation_is_that_of_the_sparse_layer(generator):
    from deepstat.graphs import gcn

    x, a, _ = batch(generator)
    edges = a[0].nonzero().T
    torch.testing.assert_close(propagate(x[0], a[0]), gcn.propagate(x[0], edges), rtol=1e-12, atol=1e-14)


def test_the_layer_is_invariant_and_its_assignment_equivariant(generator, device):
    torch.manual_seed(0)
    pool = DiffPool(4, 5, 3).double().to(device)
    x, a, mask = (t.to(device) for t in batch(generator))
    place = torch.randperm(7, generator=generator).to(device)
    first, second = pool(x, a, mask), pool(x[:, place], a[:, place][:, :, place], mask[:, place])
    torch.testing.assert_close(second.assignment, first.assignment[:, place], rtol=1e-12, atol=1e-13)
    for name in ("x", "adjacency", "link_loss", "entropy"):
        torch.testing.assert_close(getattr(second, name), getattr(first, name), rtol=1e-12, atol=1e-13)


def test_the_layer_is_its_formula_and_padding_has_no_influence(generator):
    torch.manual_seed(0)
    pool = DiffPool(4, 5, 3).double()
    x, a, mask = batch(generator)
    one, h = pool(x[1, :4], a[1, :4, :4]), propagate(x[1, :4], a[1, :4, :4])
    s = (h @ pool.assign.weight.T + pool.assign.bias).softmax(-1)
    z = (h @ pool.embed.weight.T + pool.embed.bias).clamp(min=0)
    torch.testing.assert_close(one.x, s.T @ z)
    torch.testing.assert_close(one.assignment, s)
    for value, single in zip(pool(x, a, mask), one, strict=True):
        expected = value[1][:4] if value[1].shape == (7, 3) else value[1]
        torch.testing.assert_close(expected, single, rtol=1e-12, atol=1e-13)
    changed = pool(torch.where(mask[..., None], x, 1e3), a, mask)
    for value, other in zip(pool(x, a, mask), changed, strict=True):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_dtypes_and_gradients_for_all_parameters(dtype, generator, device):
    torch.manual_seed(0)
    pool = DiffPool(4, 5, 3).to(device, dtype)
    x, a, mask = batch(generator, dtype=torch.float32)
    coarse = pool(x.to(device, dtype), a.to(device, dtype), mask.to(device))
    assert {value.dtype for value in coarse} == {dtype}
    (coarse.x.square().sum() + coarse.link_loss.sum() + coarse.entropy.sum()).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in pool.parameters())


def test_gradients_are_numerical_ones(generator):
    x, a, mask = batch(generator, features=2)
    logits = torch.randn(3, 7, 2, dtype=x.dtype, generator=generator, requires_grad=True)
    x.requires_grad_()
    pick = slice(0, 2)  # the norm of the empty graph has no derivative
    assert torch.autograd.gradcheck(lambda x, s: tuple(diff_pool(x[pick], a[pick], s[pick], mask[pick])), (x, logits))


@pytest.mark.slow
def test_it_compiles_whole_and_fits_a_partition(generator, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.manual_seed(0)
    a = torch.block_diag(*[1 - torch.eye(4)] * 3)
    pool = DiffPool(12, 2, 3)
    torch.compiler.reset()
    compiled = torch.compile(pool, backend="eager", fullgraph=True)
    for mine, other in zip(compiled(torch.eye(12), a), pool(torch.eye(12), a), strict=True):
        torch.testing.assert_close(mine, other)
    optimizer = torch.optim.Adam(pool.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        coarse = pool(torch.eye(12), a)
        (coarse.link_loss + coarse.entropy).backward()
        optimizer.step()
    assert coarse.link_loss < 12**0.5  # what the partition itself leaves, on the diagonal; a soft one does better
    clusters = coarse.assignment.argmax(1).view(3, 4)
    assert (clusters == clusters[:, :1]).all()
    assert len(set(clusters[:, 0].tolist())) == 3


def test_bad_input_is_refused(generator):
    x, a, mask = batch(generator, dtype=torch.float32)
    logits = torch.zeros(3, 7, 2)
    pool = DiffPool(4, 5, 3)
    cases = (
        (lambda: diff_pool(x[0, 0], a, logits), ValueError, r"z must have shape \(..., nodes, features\), got \(4,\)"),
        (lambda: diff_pool(x, a[:, :6], logits), ValueError, r"adjacency must have shape \(3, 7, 7\), got \(3, 6, 7\)"),
        (lambda: diff_pool(x, a, logits[:, :6]), ValueError, r"logits must have shape \(3, 7, 'clusters'\), got \(3, 6, 2\)"),
        (lambda: diff_pool(x, a, logits, mask.long()), TypeError, "mask must be boolean, got torch.int64"),
        (lambda: diff_pool(x, a, logits, mask[:2]), ValueError, r"mask must have shape \(3, 7\), got \(2, 7\)"),
        (lambda: pool(x[..., :3], a), ValueError, r"x must have shape \(..., nodes, 4\), got \(3, 7, 3\)"),
        (lambda: DiffPool(4, 5, 0), ValueError, "clusters must be at least 1, got 0"),
        (lambda: DiffPool(4, 5.0, 1), TypeError, "outputs must be an integer, got float"),
    )
    for call, error, message in cases:
        with refuses(error, message):
            call()
