"""Freed memory stays with the process: what one pass of a model gives back, the next one takes again (no torch)."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h

KEPT = 2**30
"""Bytes at the end of the heap that are not given back."""

FROM_HEAP = 32 * 2**20
"""Blocks smaller than this come from the heap. glibc itself raises its limit this far and no further."""


def keep_freed_memory() -> None:
    """Let the C library keep up to 1 GiB that is free; does nothing where it is not glibc.

    glibc gives the end of the heap back as soon as twice its largest block so far lies free, and every page of it must
    be made anew when it is next needed. Dreams of small models did so at each layer or never, as chance would have it:
    17,000 pages and a fifth of the time of one frame of 16 dreams (8 layers of width 128, one thread).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, FROM_HEAP)
        mallopt(M_TRIM_THRESHOLD, KEPT)
