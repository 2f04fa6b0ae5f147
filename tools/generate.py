"""Write the stubs of the protos below a directory: `generate.py DIRECTORY` for Python, and with
`--go` or `--typescript` before the directory for these, where their tools are installed.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def generate(out: Path) -> None:
    """Run buf with the programs of this environment, and remove stubs that are not needed."""
    _buf("buf.gen.yaml", out)
    # A file without services has no gRPC stubs worth keeping.
    for stub in (out / "samovar" / "v1").glob("errors_pb2_grpc.*"):
        stub.unlink()


def generate_go(out: Path) -> None:
    """Run buf with the plugins that `clients/go/go.mod` names, which Go builds."""
    _buf("buf.gen.go.yaml", out)


def generate_typescript(out: Path) -> None:
    """Run buf with the plugin that `npm ci` installed in clients/typescript."""
    _buf("buf.gen.typescript.yaml", out)


def _buf(template: str, out: Path) -> None:
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(
        [binaries / "buf", "generate", "--template", template, "--output", out],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        check=True,
    )


if __name__ == "__main__":
    *options, directory = sys.argv[1:]
    make = {"--go": generate_go, "--typescript": generate_typescript}
    make.get("".join(options), generate)(Path(directory).resolve())
