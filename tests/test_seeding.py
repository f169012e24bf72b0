import random

import numpy as np
import pytest
import torch

from deepstat import seeding
from helpers import refuses


def draws(device="cpu"):
    numbers = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002
    return [*numbers, torch.rand((), device=device).item()]


def test_the_same_seed_gives_the_same_numbers_everywhere(device):
    first_generator = seeding.seed_everything(3)
    first = draws(device)
    second_generator = seeding.seed_everything(3)
    assert draws(device) == first
    a, b = (torch.rand(5, generator=g) for g in (first_generator, second_generator))
    assert torch.equal(a, b)
    assert seeding.seed_everything(3).initial_seed() == 3


def test_another_seed_gives_other_numbers():
    seeding.seed_everything(3)
    first = draws()
    seeding.seed_everything(4)
    assert not set(first) & set(draws())


def test_the_generator_is_its_own_stream():
    generator = seeding.seed_everything(3)
    first = draws()
    seeding.seed_everything(3)
    torch.rand(7, generator=generator)
    assert draws() == first


@pytest.mark.parametrize("fail", [False, True])
def test_an_isolated_block_leaves_the_global_states_alone(device, fail):
    seeding.seed_everything(3)
    expected = draws(device)
    seeding.seed_everything(3)
    try:
        with seeding.isolated():
            seeding.seed_everything(99)
            draws(device)
            if fail:
                raise RuntimeError
    except RuntimeError:
        pass
    assert draws(device) == expected


def test_the_states_of_several_gpus_are_kept_without_a_warning(monkeypatch):
    states = {0: "first", 1: "second"}  # of two GPUs that are not there
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    with seeding.isolated():
        states.update({0: "other", 1: "another"})
    assert states == {0: "first", 1: "second"}


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with refuses(ValueError, rf"seed must be from 0 to 2\*\*32 - 1, got {seed}"):
        seeding.seed_everything(seed)


@pytest.mark.parametrize(("seed", "kind"), [(0.5, "float"), ("0", "str"), (True, "bool")])
def test_a_seed_that_is_no_integer_is_refused(seed, kind):
    with refuses(TypeError, f"seed must be an integer, got {kind}"):
        seeding.seed_everything(seed)
