import subprocess
import sys

import pytest
import torch

from deepstat import device as module
from helpers import refuses


def test_the_best_device_is_one_that_works(device):
    best = module.pick()
    assert torch.zeros(2, device=best).sum() == 0
    assert best.type == "cuda" or not torch.cuda.is_available()
    assert module.pick(str(device)) == device


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_order_is_cuda_mps_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert module.pick() == torch.device(expected)
    if cuda:
        assert module.pick("cuda:1") == torch.device("cuda:1")
    with refuses(ValueError, "name must be a device of this machine"):
        module.pick("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cpu:3", "cuda:99", "xla"])
def test_an_unknown_or_absent_device_is_refused(name):
    with refuses(ValueError, f"name must be a device of this machine .*cpu.*, got '{name}'"):
        module.pick(name)


def test_a_name_that_is_no_string_is_refused():
    with refuses(TypeError, "name must be a string or None, got int"):
        module.pick(0)


@pytest.mark.slow
def test_importing_the_package_changes_no_global_state():
    program = """
import random, numpy, torch, matplotlib, accelerate
def state():
    rng = torch.get_rng_state().sum().item(), random.getstate(), numpy.random.get_state()[1].sum()
    return *rng, torch.get_num_threads(), torch.get_default_dtype(), dict(matplotlib.rcParams)
before = state()
from deepstat import device, environment, plotting, seeding, source, training
from deepstat.datasets import graphs, images, splits, tabular
assert state() == before
from accelerate.state import AcceleratorState, PartialState
assert not AcceleratorState._shared_state and not PartialState._shared_state
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
