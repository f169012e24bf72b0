import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import TensorDataset, default_collate

from deepstat.batches import Rows, as_dataset, deal, share
from helpers import refuses
from training_runs import Pairs


class Process(Accelerator):
    """One of several processes, as far as ``deal`` asks; nothing is started."""

    device, process_index, num_processes = torch.device("cpu"), 0, 1

    def __init__(self, index, number):
        self.process_index, self.num_processes = index, number


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 32])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_the_weighted_means_of_the_shares_average_to_the_mean(n, processes):
    values = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    batch = torch.arange(n)
    shares = [share(batch, process, processes) for process in range(processes)]
    average = sum(weight * values[rows].mean() for rows, weight in shares) / processes
    torch.testing.assert_close(average, values.mean(), rtol=1e-12, atol=1e-14)
    taken = torch.cat([rows for rows, weight in shares if weight > 0])
    assert sorted(taken.tolist()) == batch.tolist()
    assert all(len(rows) >= 1 for rows, _ in shares)


def test_known_shares():
    batch = torch.tensor([5, 3, 8])
    assert [(rows.tolist(), weight) for rows, weight in (share(batch, r, 2) for r in range(2))] == [
        ([5, 8], pytest.approx(4 / 3)),
        ([3], pytest.approx(2 / 3)),
    ]
    rows, weight = share(batch[:1], 1, 2)
    assert rows.tolist() == [5]
    assert weight == 0


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_is_dealt_once_over_all_processes(processes):
    x, y = torch.arange(11.0)[:, None], torch.arange(11)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    for data in ((x, y), Pairs(x, y)):
        rows, seen = as_dataset("train", data), []
        for process in range(processes):
            dealt = list(deal(rows, order, batch_size=4, collate=default_collate, accelerator=Process(process, processes)))
            assert [batch.rows for batch in dealt] == [4, 4, 3]
            for batch in dealt:
                assert batch.input[:, 0].tolist() == batch.target.tolist()
                seen += batch.target.tolist() if batch.weight else []
        assert sorted(seen) == list(range(11))


def test_nested_rows_are_indexed_together():
    rows = Rows("train", ({"a": torch.arange(4), "b": (torch.arange(4) * 10,)}, torch.arange(4) * 100))
    assert len(rows) == 4
    nested, target = rows[torch.tensor([3, 1])]
    assert nested["a"].tolist() == [3, 1]
    assert nested["b"][0].tolist() == [30, 10]
    assert target.tolist() == [300, 100]
    assert [tensor.tolist()[1] for tensor in rows.tensors()] == [1, 10, 100]


def test_a_tensor_dataset_is_read_as_its_tensors():
    x, y = torch.zeros(3, 2), torch.zeros(3)
    assert isinstance(as_dataset("train", TensorDataset(x, y)), Rows)
    assert as_dataset("validation", None) is None


@pytest.mark.parametrize(
    ("call", "exception", "message"),
    [
        (lambda: share(torch.arange(0), 0, 1), ValueError, "batch must have at least one row, got none"),
        (lambda: share(torch.arange(3), 2, 2), ValueError, "process must be from 0 to 1, got 2"),
        (lambda: share(torch.arange(3), -1, 2), ValueError, "process must be from 0 to 1, got -1"),
        (lambda: as_dataset("train", None), TypeError, "train must be .* got NoneType"),
        (lambda: Rows("train", (torch.ones(2), torch.ones(3))), ValueError, r"same number of rows, got \[2, 3\] rows"),
        (lambda: Rows("train", (torch.ones(2), "a")), TypeError, "train must hold tensors"),
    ],
)
def test_bad_input_is_refused(call, exception, message):
    with refuses(exception, message):
        call()
