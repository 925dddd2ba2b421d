"""What the C library does with memory that tensors give back."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next tensor of that size, instead of giving it back to the kernel.

    By default blocks of over 32 MB are mapped anew each time, and each of their pages is faulted in and zeroed again: on a CPU
    nearly half of a training step on large images (`benchmarks/training.py`). The price is a peak that is somewhat higher,
    since up to 2 GB that were freed are kept.

    It holds for the whole process and cannot be taken back, so a program calls it, never a library.

    Returns:
        Whether it took effect: not where the C library is another one.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_MMAP_MAX, 0))
