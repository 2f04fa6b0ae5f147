"""Renew the lock files: versions and hashes, never download addresses."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = ("run", "dev", "docs", "deploy")
#: For the image: what the service itself needs, in the versions of `run`.
SERVE = ("--constraint=requirements/run.txt", "--no-emit-package=samovar", "pyproject.toml")
#: The oldest versions that the client accepts of its dependencies.
OLDEST = ("--resolution=lowest-direct", "clients/python/pyproject.toml")
# Package indexes are the machine's own: they must not get into a lock.
PLACES = ("PIP_FIND_LINKS", "UV_FIND_LINKS")


def main() -> None:
    """Renew every lock."""
    environ = {name: value for name, value in os.environ.items() if name not in PLACES}
    sources: dict[str, tuple[str, ...]] = {name: (f"requirements/{name}.in",) for name in LOCKS}
    sources |= {"serve": SERVE, "oldest": OLDEST}
    for name, source in sources.items():
        command = [
            str(Path(sys.executable).parent / "uv"),
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--upgrade",
            "--python-version=3.11",
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-header",
            *source,
            f"--output-file=requirements/{name}.txt",
        ]
        subprocess.run(command, cwd=ROOT, env=environ, check=True)


if __name__ == "__main__":
    main()
