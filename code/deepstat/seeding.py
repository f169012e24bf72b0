"""Random numbers that come out the same every time.

Chapter: foundations/pytorch.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python's, NumPy's and PyTorch's global random numbers, on all devices.

    Args:
        seed: an integer from 0 to :math:`2^{32} - 1`, the range that NumPy accepts.

    Returns:
        A generator of its own on the CPU with the same seed, for functions that take one.

    Raises:
        TypeError: if ``seed`` is not an integer.
        ValueError: if it is out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an integer, got {type(seed).__name__}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}")
    random.seed(int(seed))
    np.random.seed(int(seed))  # noqa: NPY002  libraries still draw from this one
    torch.manual_seed(int(seed))
    return torch.Generator().manual_seed(int(seed))


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Give all global random states back, after the block, as they were before it.

    What the block draws or seeds changes nothing outside.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    devices = range(torch.cuda.device_count())  # unless named, more than one of them warn
    with torch.random.fork_rng(devices, device_type="cuda"):  # and the CPU
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            if mps is not None:
                torch.mps.set_rng_state(mps)
