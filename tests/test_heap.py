"""Memory that is freed is the system's again."""

import ctypes
import sys
from resource import getpagesize

import pytest
from support.program import run

#: Prints how much more is in blocks of their own while 4 MiB are allocated, and behind that.
#: `mapped` is that of `struct mallinfo2` of glibc 2.33 and later.
GROWN = """
import ctypes
from samovard.heap import return_large_blocks
class Allocated(ctypes.Structure):
    _fields_ = [(str(n), ctypes.c_size_t) for n in range(4)] + [
        ("mapped", ctypes.c_size_t), ("rest", ctypes.c_size_t * 5)]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Allocated
return_large_blocks()
bytes(16 << 20)  # freed at once: by default glibc takes up to that much from a heap from now on
before = libc.mallinfo2().mapped
block = bytes(4 << 20)
held = libc.mallinfo2().mapped - before
del block
print(held, libc.mallinfo2().mapped - before)
"""


def test_memory_of_a_large_message_is_returned() -> None:
    """A block of some MiB is mapped on its own, also once a larger one was freed.

    In a process of its own, whose heap has no such block yet.
    """
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("it needs glibc 2.33 or later")
    done = run(sys.executable, "-c", GROWN)
    assert done.returncode == 0, done.stderr
    held, left = map(int, done.stdout.split())
    assert held >= 4 << 20
    assert left < 4 << 20


#: Prints what glibc has of each heap, after a thread has taken its first piece of memory.
HEAPS = """
import ctypes, threading
from samovard.heap import return_large_blocks
libc = ctypes.CDLL(None)
libc.fdopen.restype, libc.fdopen.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fflush.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
return_large_blocks()
thread = threading.Thread(target=libc.malloc, args=(65536,))
thread.start()
thread.join()
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(out)
"""


#: Prints how much is resident with 64 MiB of small pieces, of which the last stays, and without.
TRIMMED = """
from pathlib import Path
from samovard.heap import return_large_blocks, trim
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
return_large_blocks()
pieces = [b"x" * (32 << 10) for _ in range(2048)]
held, stays = resident(), pieces.pop()
del pieces
trim()
print(held, resident())
"""


def test_what_lies_free_between_what_is_in_use_is_returned() -> None:
    """Not only what lies at the end of the heap."""
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("it needs glibc")
    done = run(sys.executable, "-c", TRIMMED)
    assert done.returncode == 0, done.stderr
    held, left = map(int, done.stdout.split())
    assert held - left > (60 << 20) // getpagesize()


def test_threads_share_a_heap() -> None:
    """What one frees another one uses: pieces of messages are gRPC's threads' own."""
    if not hasattr(ctypes.CDLL(None), "malloc_info"):
        pytest.skip("it needs glibc")
    done = run(sys.executable, "-c", HEAPS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<heap nr=") == 1
