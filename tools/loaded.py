"""Run a command beside two busy loops per core, end them with it, and print the time."""

import os
import signal
import subprocess
import sys
import time
from types import FrameType

PER_CORE = 2
#: Ends by itself when its starter has gone, however that ended.
LOOP = "import os\nstarter = os.getppid()\nwhile os.getppid() == starter: pass"


def main(command: list[str]) -> int:
    """Return the command's exit code, or 128 and the number of the signal that ended it."""
    signal.signal(signal.SIGTERM, _interrupt)
    count = PER_CORE * len(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-I", "-S", "-c", LOOP]) for _ in range(count)]
    begin = time.monotonic()
    print(f"beside {count} busy loops", flush=True)
    try:
        code = _run(command)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    seconds = round(time.monotonic() - begin)
    print(f"took {seconds // 60} min {seconds % 60} s beside {count} busy loops", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _run(command: list[str]) -> int:
    with subprocess.Popen(command) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                # A terminal sends it to the command too, which handles it in its own way.
                child.send_signal(signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
