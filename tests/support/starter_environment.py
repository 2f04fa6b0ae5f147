"""The state that a process inherits from its starter: signals, umask, locale and variables.

It is made the same for every run, so that no test depends on its starter or place.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

#: Variables that the tests or their tools read. Everything else is dropped.
KEPT = {
    "CI",  # tools that are missing: fail instead of skip
    "PATH",
    "SAMOVAR_LONG",  # more examples of what is drawn
    "SSL_CERT_DIR",  # packages over HTTPS
    "SSL_CERT_FILE",
}
KEPT_PREFIXES = ("PYTEST_",)  # the runner's own, and what it tells its workers
GIVEN = {
    # Its fork handlers would warn at each spawn.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}


def settle() -> None:
    """Reset what this process inherited. Must be called before grpc is imported."""
    reset_signals()
    os.umask(0o022)
    for name in set(os.environ) - KEPT:
        if not name.startswith(KEPT_PREFIXES):
            del os.environ[name]
    os.environ.setdefault("PATH", os.defpath)
    os.environ.update(GIVEN)
    time.tzset()


def reset_signals() -> None:
    """Unblock all signals, and handle each that is ignored as it is by default.

    A shell ignores SIGINT for what it starts in the background, nohup ignores SIGHUP, and
    children inherit both.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) is signal.SIG_IGN:
            # The C library reserves some numbers.
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, _handler(number))


def _handler(number: int) -> Callable[[int, FrameType | None], object] | signal.Handlers:
    if number == signal.SIGINT:
        return signal.default_int_handler
    if number == signal.SIGHUP:
        # A run under nohup survives its terminal. A handler is not inherited, an ignored signal is.
        return lambda number, frame: None
    return signal.SIG_DFL
