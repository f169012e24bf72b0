"""What the processes of ``test_distributed`` run: they cannot import a test module."""

import os
import time

import torch
from torch import distributed


def describe(process, processes):
    return process, processes, distributed.get_rank(), distributed.get_world_size(), torch.get_num_threads()


def fail_in_one(process, processes):
    if process == 1:
        leave = distributed.destroy_process_group
        distributed.destroy_process_group = lambda: (leave(), time.sleep(2))  # so that the other one ends first
        raise ZeroDivisionError("one of them divides by zero")
    distributed.barrier()


def die_in_one(process, processes):
    if process == 1:
        os._exit(3)
    distributed.barrier()


def hang(process, processes, file):
    with open(file, "a") as out:
        out.write(f"{os.getpid()}\n")
    time.sleep(600)

