"""What the C library does with memory that is freed: it gives it back.

Knows glibc; another library does what it does. Knows nothing of what the memory was for.
"""

import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of mallopt(3)
LARGE = 1 << 20  # bytes: more than a read of a pipe, or what is written for it


def return_large_blocks() -> None:
    """Have memory of large messages returned to the system as soon as it is freed.

    By default glibc does so only until the first is freed: from then on it takes blocks of that
    size, up to 32 MiB, from heaps, where what lies behind them keeps them. Pieces of messages are
    smaller: with a heap for each thread, those that gRPC's threads free stay where only they look.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # musl has none
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Return what lies free between what is in use. Blocks, the longer the more there is."""
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)
