"""The client runs on the oldest packages that it asks for: a protobuf 6 among them."""

import sys
from pathlib import Path

import pytest
from protoc_gen_python import OLDEST
from support.optional_tools import missing, passes
from support.scripted_server import Script, finished, playing, said, started

CLIENT = Path(__file__).parents[2] / "clients" / "python"
PACKAGES = Path(sys.prefix) / "oldest"
#: What both clients do.
PROGRAM = """
import asyncio, sys
import google.protobuf, samovar

async def ask(target):
    async with samovar.AsyncClient(target) as client:
        return (await client.ask("Hello")).text

print(google.protobuf.__version__, samovar.ask("Hello", target=sys.argv[1]).text)
print(asyncio.run(ask(sys.argv[1])))
"""


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_the_client_runs_on_the_oldest_packages(implementation: str) -> None:
    """Without a warning, with nothing newer in reach, and in both implementations of protobuf."""
    if not PACKAGES.is_dir():
        missing("the oldest packages are not installed: `make deploy-tools` does it")
    script = Script(*[[started(), said("hi"), finished("hi")]] * 2)
    with playing(script) as target:
        # -S: no site-packages, so that only these packages can be found.
        told = passes(
            *(sys.executable, "-S", "-W", "error", "-c", PROGRAM, target),
            PYTHONPATH=f"{PACKAGES}:{CLIENT}",
            PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=implementation,
            GRPC_ENABLE_FORK_SUPPORT="0",
        )
    assert told == f"{'.'.join(map(str, OLDEST))} hi\nhi\n"
