"""Freed memory is used again, without a request to the system for every batch."""

import subprocess
import sys

import pytest

_FAULTS = """
import platform, resource, sys, torch
from semcut.connector.models.device import keep_freed_memory

if platform.libc_ver()[0] != "glibc":
    sys.exit(3)
if sys.argv[1] == "keep":
    keep_freed_memory()

def batch():
    return (torch.ones(16 << 20) + 1).sum() + (torch.ones(12 << 20) * 2).sum()

for _ in range(8):  # until the freed blocks are large enough for a batch
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again_without_a_request_to_the_system():
    def faults(how):
        run = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True)
        if run.returncode == 3:
            pytest.skip("needs glibc, but the C library here is another")
        assert run.returncode == 0, run.stderr
        return int(run.stdout)

    assert faults("keep") < faults("default") / 10
