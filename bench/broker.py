"""What the credential broker adds to a request: the stand-in called through it, and directly.

Both are called by turns, in a shuffled order, on one kept connection each, so that what slows the
machine slows both. The broker is a process of its own, and so is the stand-in.
"""

import asyncio
import http.client
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from urllib.parse import urlsplit

from bench.figures import Figure, Part, timed
from bench.programs import program
from bench.rounds import WARM_UP, Sample
from bench.run import Run
from samovard.standin import drip, script

GAP = 0.005  # seconds between two pieces of a stream
PIECES = 40
STREAMS = 50
DIRECT, BROKER = "the stand-in directly", "through the broker"
HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": "k"}
#: About what the CLI sends with a first message.
SYSTEM = "You are measured. " * 2500


class Caller:
    """A kept connection to one address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = f"{parts.path}/v1/messages?beta=true"
        self._connection = http.client.HTTPConnection(parts.netloc)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def pieces(self, body: bytes) -> Iterator[tuple[float, bytes]]:
        """Send a request; yield each piece of its answer with the seconds since it was sent."""
        begin = time.perf_counter()
        self._connection.request("POST", self._path, body, HEADERS)
        answer = self._connection.getresponse()
        while piece := answer.read1():
            yield time.perf_counter() - begin, piece


def body(prompt: str) -> bytes:
    """Return a request for a stream."""
    message = {"role": "user", "content": prompt}
    asked = {"model": "haiku", "stream": True, "system": SYSTEM, "messages": [message]}
    return json.dumps(asked).encode()


def measured(run: Run) -> Part:
    """Return what the broker adds to the first byte, and to the gaps within a stream."""
    key = run.fresh_directory() / "key"
    key.touch(mode=0o600)
    key.write_text("no-key")
    command = ["bench.brokering", run.upstream, str(key)]
    with program(command, run.fresh_directory(), "\n") as running:
        urls = {DIRECT: run.upstream, BROKER: running.said.split()[-1]}
        first, gaps = _samples(run, urls)
        whole = asyncio.run(_at_once(urls[BROKER]))
    part = timed("Requests to the model's API: first byte", first)
    part.rows += timed("", {f"{name}: gap": sample for name, sample in gaps.items()}).rows
    part.figures = [
        Figure("broker: added to the first byte, p50", _added(first, 50), "ms", most=1.0),
        Figure("broker: added to the first byte, p99", _added(first, 99), "ms", most=3.0),
        Figure("broker: added to the gap of two pieces, p99", _added(gaps, 99), "ms", most=1.0),
        Figure("broker: streams at once that came whole", whole, least=STREAMS),
    ]
    part.wrong += STREAMS - whole
    return part


def _samples(run: Run, urls: Mapping[str, str]) -> tuple[dict[str, Sample], dict[str, Sample]]:
    first = {name: Sample() for name in urls}
    gaps = {name: Sample() for name in urls}
    short, long = body("Say OK"), body(script(drip(PIECES, GAP)))
    shuffled = random.Random(1)
    for number in range(run.sizes.rounds):
        run.tell(f"round {number + 1} of {run.sizes.rounds}")
        for samples in (first, gaps):
            for sample in samples.values():
                sample.rounds.append([])
        with closing(Caller(urls[DIRECT])) as direct, closing(Caller(urls[BROKER])) as broker:
            callers = {DIRECT: direct, BROKER: broker}
            for turn in range(WARM_UP + run.sizes.turns):
                for name in shuffled.sample(sorted(urls), 2):
                    times, said = zip(*callers[name].pieces(short), strict=True)
                    if turn >= WARM_UP:
                        first[name].rounds[-1].append(times[0])
                        first[name].wrong += b'"OK"' not in b"".join(said)
            for _ in range(max(1, run.sizes.turns // 10)):
                for name in shuffled.sample(sorted(urls), 2):
                    came = [seconds for seconds, _ in callers[name].pieces(long)]
                    gaps[name].rounds[-1] += [b - a for a, b in itertools.pairwise(came)]
    return first, gaps


def _added(samples: Mapping[str, Sample], percent: float) -> float:
    if percent == 50:
        pairs = zip(samples[BROKER].medians, samples[DIRECT].medians, strict=True)
        return 1000 * statistics.median(broker - direct for broker, direct in pairs)
    return 1000 * (samples[BROKER].percentile(percent) - samples[DIRECT].percentile(percent))


async def _at_once(url: str) -> int:
    """Return how many of so many streams at once come whole."""
    parts = urlsplit(url)
    asked = body(script(drip(PIECES, GAP)))
    head = (
        f"POST {parts.path}/v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"content-length: {len(asked)}\r\n\r\n"
    )

    async def stream() -> bool:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head.encode() + asked)
        answer = await reader.read()
        writer.close()
        return b"message_stop" in answer and answer.endswith(b"0\r\n\r\n")

    return sum(await asyncio.gather(*(stream() for _ in range(STREAMS))))
