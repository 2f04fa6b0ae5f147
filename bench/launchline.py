"""The launch line: the cost of each of its flags and variables.

Knows the service's own line, and the flags that the CLI also has.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.contenders import Line, Pipe
from bench.figures import Figure, Part, Row, milliseconds
from bench.programs import CREDENTIAL
from bench.rounds import Make, Sample, interleaved, turns
from bench.run import Run
from samovard.agent import launch
from samovard.agent.home import Home
from samovard.core.process import Launch

LINE, PLAIN = "the service's line", "the plainest line"
FIFTH = 5  # a variant gets one turn for so many of a contender

# Without these it is another program, not a slower one.
_NEEDED = ("--print", "--verbose", "--input-format", "--output-format", "--session-id", "--model")
_NEEDED_VARIABLES = (
    "PATH", "HOME", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CLAUDE_CONFIG_DIR", "TMPDIR",
    "CLAUDE_CODE_TMPDIR", "SAMOVAR_MARKER", "LANG",
)  # fmt: skip
#: Flags and variables that could be there and are not.
_MORE: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
    "+ --bare": (("--bare",), {}),
    "+ --no-session-persistence": (("--no-session-persistence",), {}),
    "+ DISABLE_TELEMETRY=1": ((), {"DISABLE_TELEMETRY": "1"}),
    "+ CLAUDE_CODE_SIMPLE=1": ((), {"CLAUDE_CODE_SIMPLE": "1"}),
    "+ all default tools": (("--tools=default",), {}),
}


def line_of(cli: Path, upstream: str) -> Line:
    """Return the line of the default profile, with its credential in a variable."""
    profile = launch.LaunchOptions(model="haiku", path="/usr/local/bin:/usr/bin:/bin")
    start = Launch(
        process_id="bench", tenant="bench", profile="default", home="bench",
        agent_session=str(uuid.uuid4()), model="haiku", append_system_prompt="",
        resume=False,
    )  # fmt: skip
    home = Home(Path("/"))
    credential = {"ANTHROPIC_API_KEY": CREDENTIAL}
    variables = launch.environment(
        profile, start, home, credential, server_id="bench", base_url=upstream
    )
    for name in ("CLAUDE_CONFIG_DIR", "TMPDIR", "CLAUDE_CODE_TMPDIR"):
        del variables[name]  # they follow from HOME, which differs for each conversation
    return Line(cli, launch.arguments(profile, start), variables, Path("/"))


def plain(cli: Path, upstream: str) -> Line:
    """Return the plainest line that answers message after message."""
    arguments = ["--print", "--verbose", "--input-format=stream-json"]
    arguments += ["--output-format=stream-json", "--model=haiku"]
    variables = {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "ANTHROPIC_API_KEY": CREDENTIAL,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    } | ({"ANTHROPIC_BASE_URL": upstream} if upstream else {})
    return Line(cli, arguments, variables, Path("/"))


def variants(line: Line) -> dict[str, Line]:
    """Return the line without each of its flags and variables, and with each that it lacks."""
    found = {}
    for argument in line.arguments:
        name = argument.partition("=")[0]
        if name not in _NEEDED:
            rest = [other for other in line.arguments if other != argument]
            found[f"- {name}"] = replace(line, arguments=rest)
    for name in line.variables:
        if name not in _NEEDED_VARIABLES:
            kept = {key: value for key, value in line.variables.items() if key != name}
            found[f"- {name}"] = replace(line, variables=kept)
    for name, (arguments, more) in _MORE.items():
        changed = [a for a in line.arguments if not a.startswith("--tools") or not arguments]
        found[name] = replace(
            line, arguments=[*changed, *arguments], variables={**line.variables, **more}
        )
    return found


def measured(run: Run) -> Part:
    """Measure a warm turn with each variant of the line."""
    line = line_of(run.cli, run.upstream)
    lines = {LINE: line, PLAIN: plain(run.cli, run.upstream)}
    lines |= dict(list(variants(line).items())[: run.sizes.variants])

    def make(variant: Line) -> Make:
        return lambda: Pipe(run.fresh(variant))

    made = {name: make(variant) for name, variant in lines.items()}
    samples = interleaved(made, run.sizes.rounds, turns(max(run.sizes.turns // FIFTH, 1)), run.tell)
    return _part(samples)


def _part(samples: dict[str, Sample]) -> Part:
    own = samples[LINE]
    part = Part(
        "A warm turn of the real CLI by its launch line, through a bare pipe",
        ["", "p50 ms", "to the line, %", "rounds, %"],
    )
    for name, sample in sorted(samples.items(), key=lambda item: item[1].median):
        ratios = [100 * (a / b - 1) for a, b in zip(sample.medians, own.medians, strict=True)]
        middle = sorted(ratios)[len(ratios) // 2]
        spread = f"{min(ratios):+.0f} to {max(ratios):+.0f}"
        part.rows.append(Row(name, [milliseconds(sample.median), f"{middle:+.1f}", spread]))
        part.wrong += sample.wrong
    slower = samples[PLAIN].median / own.median
    part.figures = [Figure("the plainest line against the service's", slower, "x")]
    return part
