"""Freed memory stays with a build's process while it runs, and goes back when it has ended."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from grandbatch.memory.allocator import kept_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.ones(2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

with kept_memory():
    faults(3)
    again = faults(50)
    arrays = [np.ones(2**17) for _ in range(200)]
    del arrays
    held = resident()
print(again, held - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="libc is not glibc")
def test_arrays_reuse_memory_inside_and_it_goes_back_at_the_end():
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout
    faults_again, given_back = map(int, out.split())
    assert faults_again < 2048  # one array of 8 MiB alone has 2,048 pages
    assert given_back > 150 * 2**20
