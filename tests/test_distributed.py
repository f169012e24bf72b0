import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import workers
from deepstat import distributed
from deepstat.batches import share
from deepstat.foundations.mlp import MLP
from helpers import refuses

mse = nn.functional.mse_loss
BATCHES = [torch.arange(32), torch.arange(10, 23), torch.tensor([7]), torch.arange(3)]  # even, ragged, one row, three


def problem(outputs=1):
    torch.manual_seed(0)
    x = torch.randn(40, 3, dtype=torch.float64)
    return MLP((3, 5, outputs), torch.tanh).double(), x, (x[:, :1] * x[:, 1:2]).expand(-1, outputs).contiguous()


def descend(model, x, y, batches, learning_rate, gradient):
    """Plain gradient steps in this process."""
    for batch in batches:
        gradients = gradient(model, x, y, batch)
        with torch.no_grad():
            for parameter, slope in zip(model.parameters(), gradients, strict=True):
                parameter -= learning_rate * slope
    return list(model.parameters())


def whole(model, x, y, batch):
    return torch.autograd.grad(mse(model(x[batch]), y[batch]), list(model.parameters()))


def unweighted(model, x, y, batch):
    """The gradients of two shares' means, averaged as if the shares had the same size."""
    parts = [whole(model, x, y, share(batch, process, 2)[0]) for process in range(2)]
    return [sum(slopes) / 2 for slopes in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def results():
    """What two processes return."""
    threads, environment = torch.get_num_threads(), dict(os.environ)
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([10.0, 26.0])]
    arguments = *problem(), BATCHES, 0.1
    calls = {
        "reduced": (distributed.all_reduce, tensors),
        "weighted": (distributed.train, arguments[0], mse, *arguments[1:]),
        "unweighted": (distributed.train, arguments[0], mse, *arguments[1:], False),
        "self": (workers.describe,),
    }
    found = dict(zip(calls, distributed.launch(2, *calls.values()), strict=True))
    assert (threads, environment) == (torch.get_num_threads(), dict(os.environ))
    assert not torch.distributed.is_initialized()
    return found


@pytest.mark.slow
def test_a_process_knows_its_group_and_has_one_thread(results):
    assert results["self"] == [(0, 2, 0, 2, 1), (1, 2, 1, 2, 1)]


@pytest.mark.slow
def test_an_all_reduce_gives_all_the_same_sum(results):
    for total, mean in results["reduced"]:
        assert total.tolist() == [11, 28]
        assert mean.tolist() == [5.5, 14]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "gradient"), [("weighted", whole), ("unweighted", unweighted)])
def test_two_processes_descend_as_one(results, kind, gradient):
    expected = descend(*problem(), BATCHES, 0.1, gradient)
    for found in results[kind]:
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_without_weights_ragged_shares_give_another_result(results):
    difference = [(a - b).abs().max() for a, b in zip(results["weighted"][0], results["unweighted"][0], strict=True)]
    assert max(difference) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("worker", "message"),
    [
        (workers.fail_in_one, "(?s)fail_in_one failed: process 1 raised.*one of them divides by zero"),
        (workers.die_in_one, "die_in_one failed: process 1 ended with exit code 3"),
    ],
)
def test_a_failure_in_one_process_ends_all_and_says_why(worker, message, capfd):
    started = time.monotonic()
    with refuses(RuntimeError, message):
        distributed.launch(2, (worker,), timeout=60)
    assert time.monotonic() - started < 40
    assert children() == []


def children():
    """Processes that this one started and that still run, those of multiprocessing's own housekeeping left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"resource_tracker" not in command:
            found.append(command)
    return found


@pytest.mark.slow
def test_a_hanging_process_is_ended_in_time(tmp_path):
    with refuses(TimeoutError, r"2 processes did not finish hang in 4 s"):
        distributed.launch(2, (workers.hang, str(tmp_path / "pids")), timeout=4)
    assert children() == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is signalled on Linux only")
@pytest.mark.parametrize("ignored", [False, True], ids=["foreground", "background"])
def test_nothing_is_left_when_the_parent_is_killed(ignored, tmp_path):
    file = tmp_path / "pids"
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if ignored else ""  # as a shell's & does
    program += f"import sys; sys.path[:0] = {sys.path!r}\nfrom deepstat import distributed\nimport workers\n"
    program += f"if __name__ == '__main__':\n    distributed.launch(2, (workers.hang, {str(file)!r}))\n"
    (tmp_path / "program.py").write_text(program)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not file.exists() or len(file.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    pids = [int(pid) for pid in file.read_text().split()]
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_bad_input_is_refused():
    def inside(process, processes):
        return process

    for calls, exception, message in [
        ([], ValueError, "calls must be at least one, got none"),
        ([3], TypeError, r"calls must be tuples \(function, \*arguments\), got 3"),
        ([()], TypeError, r"calls must be tuples .*, got \(\)"),
        ([distributed.all_reduce], TypeError, "calls must be tuples"),
        ([(nn.Identity(),)], TypeError, r"calls must be tuples .*Identity"),
        ([(lambda process, processes: process,)], ValueError, "a worker must be a function that a new process can"),
        ([(inside,)], ValueError, "inside of "),
    ]:
        with refuses(exception, message):
            distributed.launch(1, *calls)
    good = distributed.all_reduce, []
    for processes in (0, -1, 1.5, True):
        with refuses(ValueError, f"processes must be an integer of at least 1, got {processes}"):
            distributed.launch(processes, good)
    for timeout in (0, -1.0, float("nan")):
        with refuses(ValueError, "timeout must be positive, got"):
            distributed.launch(1, good, timeout=timeout)


def test_a_function_of_a_notebook_is_refused(monkeypatch):
    monkeypatch.setattr(workers.hang, "__module__", "__main__")
    with refuses(ValueError, "got hang of __main__"):
        distributed.launch(1, (workers.hang, 'file'))
