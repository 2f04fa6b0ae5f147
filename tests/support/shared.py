"""The directory where the workers of one test run keep what is made once for all of them."""

from pathlib import Path

#: Set when the run begins, the same in every worker.
directory = Path()
