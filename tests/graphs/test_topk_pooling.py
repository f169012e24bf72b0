import math

import jaxtyping
import pytest
import torch

from deepstat.graphs.topk_pooling import TopKPooling, induced, top
from helpers import refuses

EDGES = torch.tensor([[0, 1, 3, 1, 3, 4, 5, 6], [1, 0, 1, 3, 3, 3, 6, 5]])  # 2 isolated, a loop at 3
BATCH = torch.tensor([0, 0, 0, 0, 0, 1, 1])


def graphs(generator, sizes=(5, 1, 8, 0, 13), dtype=torch.float32):
    """Random graphs of several sizes, one of them empty, in an unsorted batch."""
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    pairs = torch.cartesian_prod(torch.arange(len(batch)), torch.arange(len(batch))).T
    pairs = pairs[:, batch[pairs[0]] == batch[pairs[1]]]
    edges = pairs[:, torch.rand(pairs.shape[1], generator=generator) < 0.4]
    place = torch.randperm(len(batch), generator=generator)  # node v moves to place[v]
    moved = torch.empty_like(batch)
    moved[place] = batch
    x = torch.randn(len(batch), 6, dtype=dtype, generator=generator)
    return x, place[edges], moved, len(sizes)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8, 0.99])
def test_it_is_that_of_pytorch_geometric(ratio, generator, device):
    from torch_geometric import nn  # here, because its import warns

    x, edges, batch, count = (t.to(device) if isinstance(t, torch.Tensor) else t for t in graphs(generator))
    ours, theirs = TopKPooling(6, ratio).to(device), nn.TopKPooling(6, ratio).to(device)
    theirs.load_state_dict({"select.weight": ours.weight[None]})
    x.requires_grad_()
    pooled = ours(x, edges, batch, count)
    features, left, _, names, kept, _ = theirs(x, edges, batch=batch)
    assert torch.equal(pooled.kept, kept)
    assert torch.equal(pooled.edge_index, left)
    assert torch.equal(pooled.batch, names)
    torch.testing.assert_close(pooled.x, features, rtol=1e-5, atol=1e-6)
    mine = torch.autograd.grad(pooled.x.square().sum(), (x, ours.weight))
    peer = torch.autograd.grad(features.square().sum(), (x, theirs.select.weight))
    torch.testing.assert_close(mine[0], peer[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine[1], peer[1][0], rtol=1e-4, atol=1e-5)


def test_known_numbers():
    pool = TopKPooling(2, 0.4)
    pool.weight.data = torch.tensor([3.0, 4.0])  # length 5
    x = torch.tensor([[0.0, 1], [1, 0], [2, 0], [0, 2], [0, 0], [5, 5], [0, 0]])  # scores .8 .6 1.2 1.6 0, 7 0
    pooled = pool(x, EDGES, BATCH, 2)
    assert pooled.kept.tolist() == [3, 2, 5]
    assert pooled.batch.tolist() == [0, 0, 1]
    assert pooled.edge_index.tolist() == [[0], [0]]  # the loop at 3
    expected = torch.tensor([[0, 2 * math.tanh(1.6)], [2 * math.tanh(1.2), 0], [5 * math.tanh(7), 5 * math.tanh(7)]])
    torch.testing.assert_close(pooled.x, expected)


@pytest.mark.parametrize("size", [1, 7, 25, 50, 100])
def test_how_many_are_kept(size):
    for percent in range(1, 101):  # 0.07 * 100 > 7 in float64; 0.6 * 25 > 15 in float32
        kept = top(torch.arange(float(size)), torch.zeros(size, dtype=torch.int64), 1, percent / 100)
        assert len(kept) == -(-percent * size // 100)  # the ceiling, in whole numbers
        assert kept[0] == size - 1


def test_ties_go_to_the_smaller_number():
    score = torch.tensor([1.0, 2, 1, 2, 1, 1])
    assert top(score, torch.zeros(6, dtype=torch.int64), 1, 0.5).tolist() == [1, 3, 0]
    assert top(score, torch.tensor([1, 0, 1, 0, 1, 1]), 2, 0.5).tolist() == [1, 0, 2]
    assert top(torch.zeros(2000), torch.arange(2000) % 2, 2, 0.01).tolist() == [*range(0, 20, 2), *range(1, 20, 2)]


def test_a_ratio_of_one_keeps_the_graph(generator):
    x, edges, batch, count = graphs(generator)
    pooled = TopKPooling(6, 1.0)(x, edges, batch, count)
    assert pooled.kept.sort().values.tolist() == list(range(len(x)))
    assert torch.equal(pooled.kept[pooled.edge_index], edges)
    assert torch.equal(pooled.batch, batch[pooled.kept])


def test_without_ties_another_numbering_gives_the_same_graphs(generator):
    x, edges, batch, count = graphs(generator, dtype=torch.float64)
    pool = TopKPooling(6).double()
    pooled = pool(x, edges, batch, count)
    place = torch.randperm(len(x), generator=generator)
    order = torch.randperm(edges.shape[1], generator=generator)
    moved, names = torch.empty_like(x), torch.empty_like(batch)
    moved[place], names[place] = x, batch
    again = pool(moved, place[edges[:, order]], names, count)
    assert torch.equal(again.kept, place[pooled.kept])
    torch.testing.assert_close(again.x, pooled.x, rtol=1e-13, atol=1e-14)
    assert set(map(tuple, again.edge_index.T.tolist())) == set(map(tuple, pooled.edge_index.T.tolist()))


def test_induced_edges():
    assert induced(EDGES, torch.tensor([3, 1, 6]), 7).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert induced(EDGES, torch.tensor([2, 0]), 7).shape == (2, 0)


def test_empty_graphs():
    none = torch.zeros(2, 0, dtype=torch.int64)
    pooled = TopKPooling(6)(torch.zeros(0, 6), none, none[0], 3)
    assert pooled.x.shape == (0, 6)
    assert TopKPooling(6)(torch.randn(3, 6), none, none.new_zeros(3), 1).edge_index.shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_dtypes_keep_the_right_number(dtype, device):
    x = torch.randn(1001, 6, device=device).to(dtype).requires_grad_()
    pool = TopKPooling(6, 0.5).to(device, dtype)
    pooled = pool(x, EDGES.to(device), torch.zeros(1001, dtype=torch.int64, device=device), 1)
    assert pooled.x.dtype == dtype
    assert len(pooled.kept) == 501  # which float16 and bfloat16 cannot count
    pooled.x.float().sum().backward()
    assert pool.weight.grad.abs().max() > 0
    assert x.grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Dynamo's, at a break
def test_it_compiles_with_breaks_and_fits_a_batch(generator, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    x, edges, batch, count = graphs(generator)
    torch.manual_seed(0)
    pool = TopKPooling(6)
    torch.compiler.reset()
    compiled = torch.compile(pool, backend="eager")(x, edges, batch, count)
    for mine, other in zip(compiled, pool(x, edges, batch, count), strict=True):
        torch.testing.assert_close(mine, other)
    target = x.new_zeros(len(x)).scatter(0, top(x[:, 2], batch, count, 0.5), 1.0).bool()
    optimizer = torch.optim.Adam(pool.parameters(), 0.05)
    for _ in range(100):  # learn to keep the nodes whose third feature is large
        optimizer.zero_grad()
        pooled = pool(x, edges, batch, count)
        (-pooled.x[:, 2].sum()).backward()
        optimizer.step()
    assert target[pool(x, edges, batch, count).kept].float().mean() > 0.85


def test_bad_input_is_refused():
    x = torch.zeros(7, 3)
    for ratio in (0, 1.5, -0.1, float("nan")):
        with refuses(ValueError, "ratio must be above 0 and at most 1, got"):
            TopKPooling(3, ratio)
        with refuses(ValueError, "ratio must be above 0 and at most 1, got"):
            top(x[:, 0], BATCH, 2, ratio)
    with refuses(ValueError, "inputs must be at least 1, got 0"):
        TopKPooling(0)
    pool = TopKPooling(3)
    with refuses(ValueError, r"x must have shape \(rows, 3\), got \(7, 2\)"):
        pool(x[:, :2], EDGES, BATCH, 2)
    with refuses(ValueError, "edge_index must be between 0 and 5"):
        pool(x[:6], EDGES, BATCH[:6], 2)
    with refuses(ValueError, "batch must be between 0 and 0"):
        pool(x, EDGES, BATCH, 1)
    with refuses(ValueError, r"batch must have shape \(7,\)"):
        pool(x, EDGES, BATCH[:6], 2)
