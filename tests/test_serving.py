"""What the service asks of the system it runs on."""

import ctypes

import pytest

from samovard.serving import return_large_blocks

MIB = 1 << 20


class Allocated(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later: `mapped` is the bytes of blocks of their own."""

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("free", ctypes.c_size_t),
        ("small", ctypes.c_size_t),
        ("maps", ctypes.c_size_t),
        ("mapped", ctypes.c_size_t),
        ("rest", ctypes.c_size_t * 5),
    )
    mapped: int


def test_memory_of_a_large_message_is_returned() -> None:
    """A block of some MiB is mapped on its own, also once a larger one was freed."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("it needs glibc 2.33 or later")
    libc.mallinfo2.restype = Allocated
    return_large_blocks()
    bytes(16 * MIB)  # freed at once: from now on glibc would take up to that much from a heap
    before = libc.mallinfo2().mapped
    block = bytes(4 * MIB)
    assert libc.mallinfo2().mapped - before >= len(block)
    del block
    assert libc.mallinfo2().mapped - before < 4 * MIB
