"""Write the Python stubs of the protos below a directory: `generate.py DIRECTORY`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def generate(out: Path) -> None:
    """Run buf with the programs of this environment, and remove stubs that are not needed."""
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(
        [binaries / "buf", "generate", "--output", out],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        check=True,
    )
    # A file without services has no gRPC stubs worth keeping.
    for stub in (out / "samovar" / "v1").glob("errors_pb2_grpc.*"):
        stub.unlink()


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve())
