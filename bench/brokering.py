"""`python -m bench.brokering URL FILE`: the credential broker alone, until SIGTERM.

Prints an address of one agent for which a turn runs. The credential is in a file.
"""

import asyncio
import signal
import sys
from pathlib import Path

from samovard.agent.broker.broker import Broker, listen
from samovard.agent.broker.upstream import Upstream
from samovard.agent.credentials import File


async def main(url: str, path: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Broker(File(path), Upstream(url)) as broker:
        address = await broker.open(listen(), "local", "default")
        address.allow(open=True)
        print("serves", address.url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
