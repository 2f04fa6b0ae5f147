"""A scriptable stand-in for the `claude` CLI: a real child that speaks its keep-alive wire.

This side is for tests: `install` puts an executable `claude` into a directory, `fake` makes
a prompt that scripts a turn, `write_start` scripts every start from that directory. The
other modules are the child itself and import nothing but the standard library.

The child speaks 2.1.330 as recorded in `tests/wire`. Like the CLI, it writes
`session_state_changed` only if `CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS=1` and stream events
only with `--include-partial-messages`. A prompt without a script is answered with its own
text, `Say X` with `X`. Whatever a verb leaves behind ends by itself: grandchildren after
30 s, a child that was told not to end, or lost its stdin in a turn, after 60 s.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from .verbs import Verb, delta_text, fake

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Verb", "delta_text", "fake", "install", "write_start"]

_WRAPPER = """\
#!{python} -IS
import os
import sys

sys.path.insert(0, {parent!r})
from {package}.cli import main

main(sys.argv, os.path.join(os.path.dirname(os.path.realpath(__file__)), "script.json"))
"""


def install(directory: Path) -> Path:
    """Write the executable `claude` into an existing directory and return its path.

    It runs this interpreter, isolated and without site packages, whatever its environment, and
    reads the modules of this package where they are.
    """
    package = os.path.dirname(os.path.abspath(__file__))
    wrapper = directory / "claude"
    wrapper.write_text(
        _WRAPPER.format(
            python=sys.executable,
            parent=os.path.dirname(package),
            package=os.path.basename(package),
        )
    )
    wrapper.chmod(0o755)
    return wrapper


def write_start(directory: Path, *verbs: Verb) -> None:
    """Script every later start of the `claude` in `directory`; without verbs, none again.

    The environment variable FAKE_CLAUDE, the same JSON list, takes precedence. Faults run before
    stdin is read; verbs of a turn are put in front of each turn's own script.
    """
    draft = directory / "script.json.new"
    draft.write_text(json.dumps(verbs))
    draft.replace(directory / "script.json")
