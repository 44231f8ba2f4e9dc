"""Freed memory is used again, without a request to the system for every batch."""

import subprocess
import sys

import pytest

_FAULTS = """
import platform, resource, sys, torch
from semcut.connector.models.device import keep_freed_memory

if platform.libc_ver()[0] != "glibc":
    sys.exit(3)

def batch():
    return (torch.ones(10 << 20) + 1).sum() + (torch.ones(9 << 20) * 2).sum()  # more than 32 MB each

def faults(after):
    for _ in range(after):
        batch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        batch()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults(after=2)
keep_freed_memory()
print(before, faults(after=30))  # until the freed blocks are large enough for a batch
"""


def test_freed_memory_is_used_again_without_a_request_to_the_system():
    run = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True)
    if run.returncode == 3:
        pytest.skip("needs glibc, but the C library here is another")
    assert run.returncode == 0, run.stderr
    before, after = map(int, run.stdout.split())
    assert after < before / 10
