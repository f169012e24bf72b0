import jaxtyping
import pytest
import torch

from deepstat.graphs.message_passing import REDUCTIONS
from deepstat.graphs.readout import check_batch, readout
from helpers import refuses

BATCH = torch.tensor([3, 0, 1, 0, 3, 3])  # unsorted; graph 2 and graph 4 have no node
every = pytest.mark.parametrize("reduce", REDUCTIONS)


def by_loop(x, batch, graphs, reduce):
    """Graph by graph; zeros where there is no node."""
    rows = [x[batch == graph] for graph in range(graphs)]
    how = {"sum": lambda r: r.sum(0), "mean": lambda r: r.mean(0), "max": lambda r: r.amax(0)}[reduce]
    return torch.stack([how(row) if len(row) else x.new_zeros(x.shape[1]) for row in rows])


@every
def test_graph_by_graph(reduce, generator, device):
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator).to(device) - 5  # negative, so a maximum of 0 shows
    found = readout(x, BATCH.to(device), 5, reduce)
    torch.testing.assert_close(found, by_loop(x, BATCH.to(device), 5, reduce), rtol=1e-14, atol=1e-14)
    assert (found[[2, 4]] == 0).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@every
def test_it_is_that_of_pytorch_geometric(reduce, generator):
    from torch_geometric import nn  # here, because its import warns

    theirs = {"sum": nn.global_add_pool, "mean": nn.global_mean_pool, "max": nn.global_max_pool}[reduce]
    x = torch.randn(40, 5, generator=generator)
    batch = torch.randint(7, (40,), generator=generator)
    torch.testing.assert_close(readout(x, batch, 8, reduce), theirs(x, batch, 8), rtol=1e-5, atol=1e-6)


@every
def test_the_order_of_the_nodes_does_not_matter(reduce, generator):
    x = torch.randint(-9, 9, (6, 3), generator=generator).double()  # integers: sums are exact
    order = torch.randperm(6, generator=generator)
    assert torch.equal(readout(x[order], BATCH[order], 4, reduce), readout(x, BATCH, 4, reduce))


@every
def test_it_compiles_whole_and_takes_small_dtypes(reduce, device, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    x, batch = torch.ones(600, 2, dtype=torch.bfloat16, device=device), torch.zeros(600, dtype=torch.int64, device=device)
    found = readout(x, batch, 1, reduce)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[600.0 if reduce == "sum" else 1.0] * 2]
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(readout, backend="eager", fullgraph=True)(x, batch, 1, reduce), found)


@every
def test_gradients_are_numerical_ones_and_empty_batches(reduce, generator):
    x = torch.randn(6, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: readout(x, BATCH, 5, reduce), x)
    assert readout(torch.zeros(0, 3), BATCH[:0], 2, reduce).tolist() == [[0.0] * 3] * 2
    assert readout(torch.zeros(0, 3), BATCH[:0], 0, reduce).shape == (0, 3)


def test_bad_input_is_refused():
    x = torch.zeros(6, 2)
    cases = (
        ((x, BATCH, 5, "median"), ValueError, "reduce must be one of sum, mean, max, got 'median'"),
        ((x.long(), BATCH, 5), TypeError, "x must be a floating point tensor, got torch.int64"),
        (([[0.0]], BATCH, 5), TypeError, "x must be a floating point tensor, got list"),
        ((x[:, 0], BATCH, 5), ValueError, r"x must have shape \(nodes, features\), got \(6,\)"),
        ((x, BATCH.int(), 5), TypeError, "batch must be a tensor of int64, got torch.int32"),
        ((x, [0] * 6, 5), TypeError, "batch must be a tensor of int64, got list"),
        ((x, BATCH[:5], 5), ValueError, r"batch must have shape \(6,\), one graph a node, got \(5,\)"),
        ((x, BATCH, 3), ValueError, "batch must be between 0 and 2, got entries from 0 to 3"),
        ((x, BATCH - 1, 4), ValueError, "got entries from -1 to 2"),
        ((x, BATCH, 0), ValueError, "there are no graphs"),
        ((x, BATCH, -1), ValueError, "graphs must not be negative, got -1"),
        ((x, BATCH, 5.0), TypeError, "graphs must be an integer, got float"),
        ((x, BATCH, True), TypeError, "graphs must be an integer, got bool"),
    )
    for arguments, error, message in cases:
        with refuses(error, message):
            readout(*arguments)
    check_batch(BATCH, 6, 4)
