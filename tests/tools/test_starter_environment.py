"""No test depends on who starts the run: a few are run as a hostile starter would."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import environ, processes_of, send
from support.service import until
from support.timeouts import BOUND

TESTS = Path(__file__).parents[1]
#: Ends in the runner, with all that a shell's background job and nohup leave ignored.
STARTER = """
import os, signal, sys
for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGCHLD", "SIGALRM"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD})
os.umask(0o077)
os.execv(sys.argv[1], sys.argv[1:])
"""
#: Signals, modes of files, settings from variables, a terminal's width, words beyond ASCII.
SAMPLE = (
    "test_samovard.py::test_a_signal_ends_it_with_0_and_nothing_is_left[2]",
    "agent/test_home.py",
    "settings/test_settings.py",
    "clients/test_top.py::test_ctrl_c_ends_it",
    "clients/test_chat_parts.py",
    "clients/test_chat_terminal.py::test_ctrl_c_interrupts_the_turn_and_keeps_the_session",
)
#: A test run that serves, and prints the service's pid and address.
SERVING = """
import pathlib, sys
from support.program import served
with served(pathlib.Path(sys.argv[1])) as program:
    print(program.child.pid, program.address, flush=True)
    sys.stdin.read()
"""
HOSTILE = {
    "PATH": os.environ["PATH"],
    "TMPDIR": f"/nonexistent/{'t' * 76}",
    "TERM": "dumb",
    "COLUMNS": "20",
    "FORCE_COLOR": "1",
    "XDG_STATE_HOME": "/nonexistent/state",
    "SAMOVAR_SERVER__LISTEN": "garbage",
    "SAMOVAR_API_KEY": "garbage",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "garbage",
    "OTEL_SDK_DISABLED": "true",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
    "CLAUDE_CONFIG_DIR": "/nonexistent/claude",
    "GRPC_ENABLE_FORK_SUPPORT": "1",
    "http_proxy": "http://127.0.0.1:1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "all_proxy": "http://127.0.0.1:1",
    "TZ": "Pacific/Kiritimati",
}


@pytest.mark.parametrize(
    ("variables", "sample"),
    [
        ({"HOME": "/" + "h" * 59, "LC_ALL": "POSIX"}, SAMPLE),
        (
            {"LC_ALL": "C", "LANG": "de_DE.ISO-8859-1"},
            ("settings/test_settings.py", "agent/test_root.py"),
        ),
    ],
    ids=["a home of 60 bytes", "no home"],
)
def test_the_outcome_does_not_depend_on_the_starter(
    variables: dict[str, str], sample: tuple[str, ...]
) -> None:
    """Signals ignored and blocked, an odd umask, locale, home and variables, no terminal."""
    runner = [sys.executable, "-E", "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", STARTER, *runner, *(str(TESTS / name) for name in sample)],
        env=HOSTILE | variables,
        cwd=TESTS.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        timeout=BOUND,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-8000:]


def test_a_run_that_is_killed_leaves_no_service_and_no_agent(directory: Path) -> None:
    """However it ends: nothing of it is left to clean up then."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVING, str(directory)],
        env=environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        pid, address = child.stdout.readline().split()
        assert send(address, "Say here").stdout == "here\n"
        assert processes_of(directory)
        child.kill()
    asyncio.run(until(lambda: not Path("/proc", pid).exists() and not processes_of(directory)))
