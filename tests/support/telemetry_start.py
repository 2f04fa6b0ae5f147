"""Set telemetry up and end it, as a program of its own: the SDK reads variables at import."""

import asyncio
import sys

from samovard.telemetry.destination import CannotExport, Export
from samovard.telemetry.export import exporting


async def main(endpoint: str, protocol: str) -> None:
    async with exporting(Export("server", "0", endpoint, protocol, flush=0.2)):
        print("set up")


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except CannotExport as error:
        print(f"refused: {error}")
