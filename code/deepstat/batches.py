"""Rows of data, dealt in batches to one process or to several.

Chapter: foundations/pytorch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import recursively_apply, send_to_device
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset


class Rows(Dataset):
    """Tensors, or tuples or dicts of tensors, whose first dimension counts the rows; indexed by many rows at once.

    Args:
        name: what to call the data in an error.
        pair: ``(input, target)``, each a tensor or nested tensors with the same number of rows.

    Raises:
        TypeError: if something in ``pair`` is not a tensor.
        ValueError: if there are not two entries, or the numbers of rows differ.
    """

    def __init__(self, name: str, pair: tuple[Any, Any]):
        lengths: list[int] = []
        try:
            recursively_apply(
                lambda t: lengths.append(len(t) if t.ndim else 0),
                pair,
                error_on_other_type=True,
            )
        except TypeError as error:
            raise TypeError(f"{name} must hold tensors, or tuples or dicts of them: {error}") from error
        if len(pair) != 2 or len(set(lengths)) != 1:
            raise ValueError(f"{name} must be (input, target) with the same number of rows, got {lengths} rows")
        self.pair, self.length = pair, lengths[0]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Tensor) -> tuple[Any, Any]:
        return recursively_apply(lambda tensor: tensor[index.to(tensor.device)], self.pair)

    def tensors(self) -> list[Tensor]:
        """All tensors of the pair, in order."""
        found: list[Tensor] = []
        recursively_apply(found.append, self.pair)
        return found


def as_dataset(name: str, data: tuple[Any, Any] | Dataset | None) -> Dataset | None:
    """The data as something with rows, at least one; None for no validation.

    Args:
        name: ``"train"`` or ``"validation"``.
        data: as :func:`deepstat.training.fit` takes it.

    Raises:
        TypeError: if ``data`` is neither a pair of tensors nor a ``Dataset`` with a length.
        ValueError: if there are no rows, or the numbers of rows differ.
    """
    if data is None and name == "validation":
        return None
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, tuple):
        data = Rows(name, data)
    elif not isinstance(data, Dataset) or not hasattr(data, "__len__"):
        raise TypeError(
            f"{name} must be (input, target) or a Dataset with a length, "
            f"got {type(data).__name__} (of a DataLoader, pass its dataset, and batch_size)"
        )
    if len(data) == 0:
        raise ValueError(f"{name} must have at least one row, got none")
    return data


def share(batch: Int64[Tensor, " n"], process: int, processes: int) -> tuple[Int64[Tensor, " m"], float]:
    r"""The rows of a batch that one process takes, and the weight of their mean.

    Process :math:`r` of :math:`R` takes every :math:`R`-th row, from the :math:`r`-th on. The average over the
    processes of the weighted means is the mean over the batch if the mean of :math:`m` of :math:`n` rows has weight
    :math:`m R / n`. A share without rows borrows the first one at weight zero, because every process has to take part
    in the averaging.

    Args:
        batch: the rows' numbers, at least one; shape ``(n,)``.
        process: :math:`r`, from 0.
        processes: :math:`R`, at least 1.

    Returns:
        The share, shape ``(m,)``, and its weight.

    Raises:
        ValueError: if the batch is empty or there is no such process.
    """
    if len(batch) == 0:
        raise ValueError("batch must have at least one row, got none")
    if not 0 <= process < processes:
        raise ValueError(f"process must be from 0 to {processes - 1}, got {process}")
    mine = batch[process::processes]
    return (mine if len(mine) else batch[:1]), len(mine) * processes / len(batch)


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch.

    Args:
        input: of the share's rows.
        target: of the share's rows.
        rows: the number of rows of the whole batch.
        weight: of the share's mean loss, as in :func:`share`.
    """

    input: Any
    target: Any
    rows: int
    weight: float


def deal(
    rows: Dataset,
    order: Int64[Tensor, " n"],
    *,
    batch_size: int,
    collate: Callable[[list], Any],
    accelerator: Accelerator,
) -> Iterator[Batch]:
    """This process's shares of the batches, on its device.

    Args:
        rows: what :func:`as_dataset` returned.
        order: the rows' numbers as they are to be dealt, shape ``(n,)``.
        batch_size: rows in a batch, over all processes together; the last batch has what is left.
        collate: makes a batch of a list of rows, where ``rows`` is not of tensors.
        accelerator: knows the processes and the device.

    Raises:
        ValueError: if the data do not give pairs.
    """
    for batch in order.split(batch_size):
        mine, weight = share(batch, accelerator.process_index, accelerator.num_processes)
        pair = rows[mine] if isinstance(rows, Rows) else collate([rows[i] for i in mine.tolist()])
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"train and validation must give (input, target) pairs, got {type(pair).__name__}")
        yield Batch(*send_to_device(pair, accelerator.device), len(batch), weight)
