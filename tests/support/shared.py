"""The directory where the workers of one test run keep what is made once for all of them."""

import atexit
import shutil
import tempfile
from pathlib import Path

#: Set when a test run begins, the same in every worker; a program outside of one makes its own.
directory: Path | None = None


def place() -> Path:
    """Return the directory. That of a program goes with the program."""
    global directory  # one for the whole process
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="sv-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
