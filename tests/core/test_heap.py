"""What is freed and taken again costs no new pages."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
from ahriuwu_cli.core.heap import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "kept":
    keep_freed_memory()

def use():
    blocks = [libc.malloc(900_000) for _ in range(32)]
    for block in blocks:
        ctypes.memset(block, 1, 900_000)
    for block in reversed(blocks):
        libc.free(block)

libc.free(libc.malloc(1_000_000))
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the heap of glibc"
)
def test_pages_that_were_freed_are_not_made_anew() -> None:
    page, used = 4096, 10 * 32 * 900_000
    assert faults("kept") < used / page / 20
    assert faults("as it is") > used / page / 20  # there is something to keep


def test_elsewhere_nothing_is_asked_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from ahriuwu_cli.core import heap

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())  # a library without mallopt
    heap.keep_freed_memory()
