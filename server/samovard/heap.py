"""Have the C library return freed memory to the system.

Knows glibc; other libraries keep their own behaviour. Knows nothing of what the memory was for.
"""

import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of mallopt(3)
LARGE = 1 << 20  # bytes: more than a read of a pipe, or what is written for it


def return_large_blocks() -> None:
    """Make the C library return a large message's memory to the system as soon as it is freed.

    By default glibc does so only until the first one is freed: from then on it takes blocks of that
    size, up to 32 MiB, from heaps, where a block that is still in use behind them keeps them.
    Pieces of messages are smaller: with a heap for each thread, memory that gRPC's threads free
    would only be reused by the same thread.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # musl has none
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Return free memory between used blocks to the system.

    This blocks, for longer the more free memory there is.
    """
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)
