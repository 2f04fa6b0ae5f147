"""`samovar top`: what it shows, on a terminal and in a pipe."""

import asyncio
import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.pseudo_terminal import ESCAPE, piped, serve, terminal
from support.service import Running, serving

import samovar
from samovar import top
from samovar.pools import PoolCounters, PoolInfo, PoolSnapshot, ProcessInfo, ServerInfo, StageTime
from samovar.reach import Place
from samovar.top.figures import WINDOW, Change, Changes, Sort, ordered, size, span
from samovar.top.screen import draw

NONE = PoolCounters(0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0.0, 0, 0, 0, 0, ())
SERVER = ServerInfo("s", "0.1.0", "2.1.330", "none", 0.0, False, 2, 4, 3 << 20, 0)
POOL = PoolInfo("acme", "default", 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0.0, 0, 1 << 20, NONE)
PROCESS = ProcessInfo("0123456789", 7, "acme", "default", "s", "idle", 10.0, 20.0, 1, 1 << 20, "")


def snapshot(
    *pools: PoolInfo, processes: tuple[ProcessInfo, ...] = (), at: float = 100.0
) -> PoolSnapshot:
    return PoolSnapshot(at, SERVER, pools, processes)


def drawn(shown: PoolSnapshot, width: int = 200, height: int | None = None) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(draw(shown, Change(shown), width, height))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("sort", "pools", "processes"),
    [
        (Sort.WAIT, "waits acme big", "old young big"),
        (Sort.MEMORY, "big acme waits", "big old young"),
        (Sort.TURNS, "acme big waits", "young big old"),
        (Sort.AGE, "acme big waits", "old big young"),
        (Sort.TENANT, "acme big waits", "big old young"),
    ],
)
def test_rows_are_ordered_by_what_is_asked_for(sort: Sort, pools: str, processes: str) -> None:
    """Most comes first, equal ones by name; reversed is the other way round."""
    shown = snapshot(
        replace(POOL, tenant_id="big", resident_bytes=9 << 20),
        replace(POOL, tenant_id="waits", turns_waiting=1, max_wait=3.0, resident_bytes=0),
        replace(POOL, counters=replace(NONE, turns_warm=5)),
        processes=(
            replace(PROCESS, session_id="young", create_time=30.0, update_time=31.0, turn_count=9),
            replace(PROCESS, session_id="old", create_time=1.0, turn_count=0),
            replace(PROCESS, session_id="big", update_time=40.0, resident_bytes=9 << 20),
        ),
    )
    rows = ordered(shown, sort)
    assert " ".join(pool.tenant_id for pool in rows.pools) == pools
    assert " ".join(process.session_id for process in rows.processes) == processes
    assert ordered(shown, sort, reverse=True).pools == rows.pools[::-1]


def counted(**counts: int | float) -> PoolInfo:
    stages = (StageTime("finish", int(counts.get("turns_warm", 0)), counts.get("wait_time", 0.0)),)
    return replace(POOL, counters=replace(NONE, stage_times=stages, **counts))  # type: ignore[arg-type]


def test_what_changed_is_told_of_the_last_seconds() -> None:
    """First of everything since the start, then of a window that moves on."""
    changes = Changes()
    first = changes.take(snapshot(counted(turns_warm=5, wait_time=1.0)))
    assert (first.since_start, first.seconds, first.all.turns) == (True, 100.0, 5)
    second = changes.take(snapshot(counted(turns_warm=7, wait_time=4.0), at=101.0))
    assert (second.since_start, second.seconds, second.all.turns) == (False, 1.0, 2)
    assert second.all.stage_times == (StageTime("finish", 2, 3.0),)
    for at in range(102, 131):
        last = changes.take(snapshot(counted(turns_warm=7, wait_time=4.0), at=at))
    assert (last.seconds, last.all.turns) == (WINDOW, 0)


def test_where_nothing_finished_the_figures_since_the_start_stand() -> None:
    """Times are of the window if something finished in it, else of all; rates always of it."""
    busy = counted(turns_warm=2, turns_queued=1, wait_time=6.0)
    quiet = replace(counted(turns_warm=5, turns_queued=1, wait_time=10.0), tenant_id="quiet")
    change = Change(snapshot(busy, quiet, at=101.0), snapshot(quiet))
    assert not change.since_start
    assert change.times_of(busy) == (busy.counters, False)
    assert change.times_of(quiet) == (quiet.counters, True)
    idle = Change(snapshot(busy, quiet, at=102.0), snapshot(busy, quiet, at=101.0))
    assert idle.since_start
    assert idle.times.stage_times == (StageTime("finish", 7, 16.0),)
    out = io.StringIO()
    Console(file=out, width=200).print(draw(snapshot(quiet, at=102.0), idle, 200))
    lines = out.getvalue().splitlines()
    assert any(line.startswith("since the start") for line in lines)
    row = next(re.split(r"\s{2,}", line) for line in lines if line.startswith("quiet"))
    # PER S, WARM, TURN, WAIT
    assert row[11:15] == ["0.0", "100 %", "2.0 s", "10 s"]


def test_a_pool_that_came_meanwhile_had_nothing_before() -> None:
    """All that it counted happened within the window."""
    change = Change(snapshot(counted(turns_warm=3), at=101.0), snapshot())
    assert change.of(counted(turns_warm=3)).turns == 3


def test_a_picture_fits_a_terminal() -> None:
    """Columns that matter less are left out, and rows for which there is no room are counted."""
    processes = tuple(replace(PROCESS, session_id=f"s{n}") for n in range(40))
    shown = snapshot(*[replace(POOL, tenant_id=f"t{n}") for n in range(20)], processes=processes)
    wide, narrow = drawn(shown), drawn(shown, 80, 24)
    assert any("SUSPENDED" in line and "LOST" in line for line in wide)
    header = next(line for line in narrow if line.startswith("TENANT"))
    assert "SUSPENDED" not in header and "WAITING" in header
    assert max(map(len, narrow)) <= 80
    assert len(narrow) <= 24
    assert "…" not in "".join(line for line in narrow if not line.startswith("processes"))
    assert [line for line in narrow if line.startswith("and ")] == ["and 16 more", "and 30 more"]


def test_who_waits_is_in_the_first_line() -> None:
    """How many, and how long the first of them has waited."""
    waits = replace(POOL, turns_waiting=2, max_wait=7.25)
    assert "waiting 2, longest 7.2 s" in drawn(snapshot(waits))[0]


def test_names_cannot_steer_a_terminal() -> None:
    """A server that is not ours may send anything."""
    lines = drawn(snapshot(replace(POOL, tenant_id="\x1b[31mred\n[bold]")))
    assert not any("\x1b" in line for line in lines)
    assert any("[31mred [bold]" in line for line in lines)


@given(st.floats(0, 1e8))
def test_durations_and_sizes_take_few_characters(amount: float) -> None:
    """At most four, a blank and the unit."""
    for said in (span(amount), size(int(amount))):
        number, _, unit = said.partition(" ")
        assert len(number) <= 4
        assert unit


def test_words_of_durations_and_sizes() -> None:
    """Two digits at least, where there are as many."""
    seconds = {0.0004: "0.4 ms", 0.0123: "12 ms", 0.9999: "1.0 s", 42.0: "42 s", 120.0: "2.0 min"}
    assert {amount: span(amount) for amount in seconds} == seconds
    assert [span(7200.0), span(3 * 86400.0), span(None)] == ["2.0 h", "3 d", "-"]
    assert [size(0), size(999), size(1024), size(300 << 20)] == ["0 B", "999 B", "1.0 K", "300 M"]


def test_an_error_says_what_to_do(directory: Path) -> None:
    """Each in one line, with what to set."""
    down = samovar.CallBroken("x", code=grpc.StatusCode.UNAVAILABLE)
    other = samovar.CallBroken("x", code=grpc.StatusCode.UNIMPLEMENTED)
    place = Place(f"unix:{directory / 'o.sock'}")
    assert f"there is no socket {directory / 'o.sock'}" in top.why(down, place)
    assert "is not an operator's listener" in top.why(other, place)
    assert "keys add NAME --admin" in top.why(samovar.ScopeMissing("x"), place)
    assert top.why(samovar.Draining("x"), place) == "the server is gone"


def run_top(run: Running, *options: str) -> "subprocess.CompletedProcess[str]":
    target = f"unix:{run.directory / 'operator.sock'}"
    return piped(run.directory, "top", "--target", target, *options)


def test_a_script_gets_json(directory: Path) -> None:
    """`--once --json` is one line: the server, the pools and the processes, in order."""

    def story(run: Running) -> None:
        with samovar.Client(run.address) as client:
            for session in ("a", "b", "b"):
                client.ask("Say x", session=session)
        done = run_top(run, "--once", "--json", "--sort", "turns", "--tenant", "local")
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
        told = json.loads(done.stdout)
        assert told["server"]["processes"] == 2
        assert [process["session_id"] for process in told["processes"]] == ["b", "a"]
        assert told["pools"][0]["counters"]["turns_cold"] == 2

    serve(directory, story)


def test_a_pipe_gets_plain_words(directory: Path) -> None:
    """`--once` is one picture without colours, and nothing in it is cut off."""

    def story(run: Running) -> None:
        session = "s" * 60
        with samovar.Client(run.address) as client:
            client.ask("Say x", session=session)
        done = run_top(run, "--once")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert session in done.stdout
        assert "first_event" in done.stdout

    serve(directory, story)


def test_what_is_not_there_is_told_in_one_line(directory: Path) -> None:
    """No socket, a callers' listener and a bad request: 3, 3 and 2."""

    def story(run: Running) -> None:
        gone = f"unix:{directory / 'none.sock'}"
        for code, options in (
            (3, ("--target", gone)),
            (3, ("--target", run.address)),
            (2, ("--tenant", "No")),
        ):
            done = run_top(run, "--once", *options)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
            assert done.stderr.startswith("samovar: ")

    serve(directory, story)


def test_a_terminal_is_drawn_anew_and_obeys_keys(directory: Path) -> None:
    """New processes appear by themselves; s sorts, q leaves the terminal as it was."""

    def story(run: Running) -> None:
        target = f"unix:{run.directory / 'operator.sock'}"
        arguments = ("top", "--target", target, "--interval", "0.1")
        with samovar.Client(run.address) as client, terminal(directory, *arguments) as shown:
            assert "processes 0/8" in shown.until("q quit")
            with client.send(fake(v.text("x"), v.hang()), session="busy") as turn:
                next(turn)
                shown.until("leased")
                shown.press("s")
                shown.until("\x1b[7mmemory")
                shown.press("r")
                shown.until("reversed")
                shown.press("q")
                assert shown.exit_code() == 0
            assert shown.raw.rstrip().endswith("\x1b[?1049l")
            assert "busy" in ESCAPE.sub("", shown.raw)

    serve(directory, story)


def test_a_person_acts_on_the_row_that_is_chosen(directory: Path) -> None:
    """Pauses its tenant, interrupts its turn, and is asked before its session is closed."""

    def story(run: Running) -> None:
        target = f"unix:{run.directory / 'operator.sock'}"
        arguments = ("top", "--target", target, "--interval", "0.1")
        with samovar.Client(run.address) as client, terminal(directory, *arguments) as shown:
            shown.until("q quit")
            shown.press("p")
            shown.until("choose a process with j and k first")
            with client.send(fake(v.text("x"), v.hang()), session="busy") as turn:
                next(turn)
                shown.until("leased")
                shown.press("jp")
                shown.until("turns of local wait")
                shown.until("paused local")
                shown.press("p")
                shown.until("turns of local begin")
                shown.press("i")
                shown.until("busy of local: interrupted")
                *_, last = turn
                assert isinstance(last, samovar.TurnFinished)
                shown.until("idle")
                for answer in ("n", "y"):
                    assert len(run.service.sessions) == 1
                    shown.press("x")
                    shown.until("close busy of local for good? y/n")
                    shown.press(answer)
                shown.until("busy of local: closed")
                shown.press("q")
                assert shown.exit_code() == 0
        assert len(run.service.sessions) == 0

    serve(directory, story)


def test_ctrl_c_ends_it(directory: Path) -> None:
    """With the usual code, and the terminal as it was."""

    def story(run: Running) -> None:
        target = f"unix:{run.directory / 'operator.sock'}"
        with terminal(directory, "top", "--target", target) as shown:
            shown.until("q quit")
            shown.press("\x03")
            assert shown.exit_code() == 130
            assert "\x1b[?1049l" in shown.raw
            assert "Traceback" not in shown.raw

    serve(directory, story)


def test_a_server_that_goes_ends_it(directory: Path) -> None:
    """The screen is left, and one line says why."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            target = f"unix:{directory / 'operator.sock'}"
            with terminal(directory, "top", "--target", target) as shown:
                await asyncio.to_thread(shown.until, "q quit")
                await run.service.shut_down(asyncio.Event())
                assert await asyncio.to_thread(shown.exit_code) == 6
                assert "samovar: the server is gone" in shown.raw

    asyncio.run(story())
