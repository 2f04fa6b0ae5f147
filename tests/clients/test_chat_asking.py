"""Permission as a person meets it: in a conversation, on a terminal, and where nobody is."""

import json
import time
from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.chat_conversation import Over, Talk, talking
from support.pseudo_terminal import READS, piped, serve, terminal
from support.service import Running
from support.timeouts import BOUND

import samovar
from samovar.chat.conversation import OVER, Verdict

ASKS = {"permission_policy": "ask"}
PROFILES = {"default": {"model": "haiku", **ASKS}}
QUESTION = "n and why: "


def test_what_is_said_of_a_tool_is_answered(directory: Path) -> None:
    """The agent is told what the person said, and what the person said why."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        said = [Verdict(allowed=True), Verdict(allowed=False, why="not today")]
        talk.seen.decide = lambda request, over: said.pop(0)
        assert talk.send(fake(v.permission(), v.permission()))
        results = [e.text for e in talk.seen.events if isinstance(e, samovar.ToolResult)]
        assert results == ['{"file_path": "note.txt"}', "not today"]
        assert len(talk.seen.told) == 1

    talking(directory, story, profile=ASKS)


def test_a_new_session_asks_if_that_was_wanted(directory: Path) -> None:
    """Where the profile allows it, a conversation may have its own sessions ask."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        talk.seen.decide = lambda request, over: Verdict(allowed=True)
        assert talk.send(fake(v.permission()))
        assert "Allowed." in talk.seen.said

    talking(directory, story, profile={"allow_ask": True}, permission_policy="ask")


def test_a_question_is_over_when_somebody_else_answers(directory: Path) -> None:
    """The person is not kept from what goes on, and told how it ended."""

    def story(talk: Talk) -> None:
        talk.conversation.begin("s")

        def answered_elsewhere(request: samovar.PermissionRequested, over: Over) -> None:
            with samovar.Client(talk.address) as other:
                other.allow(request.permission_id, "s")
            wait(over)

        talk.seen.decide = answered_elsewhere
        assert talk.send(fake(v.permission()))
        assert talk.seen.told[-1] == OVER[samovar.Resolution.ALLOWED]
        assert "Allowed." in talk.seen.said

    talking(directory, story, profile=ASKS)


def test_an_answer_that_comes_too_late_is_told(directory: Path) -> None:
    """What expired is denied, and the answer changes nothing."""

    def story(talk: Talk) -> None:
        def late(request: samovar.PermissionRequested, over: Over) -> Verdict:
            wait(over)
            return Verdict(allowed=True)

        talk.conversation.begin()
        talk.seen.decide = late
        assert talk.send(fake(v.permission()))
        assert talk.seen.told[-1] == OVER[samovar.Resolution.EXPIRED]
        assert "Denied." in talk.seen.said

    talking(directory, story, profile={**ASKS, "permission_timeout": "100 ms"})


def test_an_interrupt_ends_a_question(directory: Path) -> None:
    """A wish to stop while a question is open ends it, and the turn."""

    def story(talk: Talk) -> None:
        def stop(request: samovar.PermissionRequested, over: Over) -> None:
            talk.seen.stop()
            wait(over)

        talk.conversation.begin()
        talk.seen.decide = stop
        assert not talk.send(fake(v.permission()))
        assert talk.seen.told[-2:] == ["interrupting", OVER[samovar.Resolution.WITHDRAWN]]
        assert talk.seen.last(samovar.TurnFinished).outcome is samovar.Outcome.INTERRUPTED

    talking(directory, story, profile=ASKS)


def test_a_turn_that_is_left_ends_a_question(directory: Path) -> None:
    """Leaving does not wait for an answer."""

    def story(talk: Talk) -> None:
        def leave(request: samovar.PermissionRequested, over: Over) -> None:
            talk.seen.stop(1)
            wait(over)

        talk.conversation.begin()
        talk.seen.decide = leave
        assert not talk.send(fake(v.permission()))
        assert talk.seen.told[-1].startswith("left: ")

    talking(directory, story, profile=ASKS)


def wait(over: Over) -> None:
    end = time.monotonic() + BOUND
    while not over():
        assert time.monotonic() < end


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_person_is_asked_on_a_terminal(directory: Path, term: str) -> None:
    """The question shows the call; a yes lets the tool run, a no tells the agent why."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address, TERM=term) as chat:
            ready = READS if term != "dumb" else "> "
            chat.until(ready)
            verbs = (v.text("First words. "), v.permission(), v.permission(), v.text(" The end."))
            chat.press(f"{fake(*verbs)}\r")
            shown = chat.until(QUESTION)
            assert "First words." in shown and "asks to use Write" in shown
            assert "file_path: note.txt" in shown
            chat.press("\r")
            assert "asks to use Write" in chat.until(QUESTION)
            chat.press("y\r")
            chat.until(QUESTION)
            chat.press("n not today\r")
            assert "The end." in chat.until(ready)
            chat.press("\x04")
            assert chat.exit_code() == 0

    serve(directory, story, profiles=PROFILES)


def test_what_was_typed_before_is_no_answer(directory: Path) -> None:
    """A yes that was typed while the agent worked allows nothing."""
    go = directory / "go"

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address) as chat:
            chat.until(READS)
            chat.press(f"{fake(v.text('begun'), v.gate(go), v.permission())}\r")
            chat.until("begun")
            chat.until("Ctrl-C interrupts")
            chat.press("y\r")
            go.touch()
            chat.until(QUESTION)
            chat.press("n\r")
            assert "Denied" in chat.until(READS) or "error" in chat.raw
            assert "Allowed" not in chat.raw
            chat.press("\x04")
            assert chat.exit_code() == 0

    serve(directory, story, profiles=PROFILES)


def test_ctrl_c_at_a_question_interrupts_the_turn(directory: Path) -> None:
    """The question is over, and the session goes on."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address) as chat:
            chat.until(READS)
            chat.press(f"{fake(v.permission())}\r")
            chat.until(QUESTION)
            chat.press("\x03")
            assert "no longer asks" in chat.until(READS)
            assert "on" in chat.say("Say on")
            chat.press("\x04")
            assert chat.exit_code() == 0

    serve(directory, story, profiles=PROFILES)


def test_the_end_of_the_input_allows_nothing(directory: Path) -> None:
    """Ctrl-D at a question denies."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address) as chat:
            chat.until(READS)
            chat.press(f"{fake(v.permission())}\r")
            chat.until(QUESTION)
            chat.press("\x04")
            assert "Denied." in chat.until(READS)
            chat.press("\x04")
            assert chat.exit_code() == 0

    serve(directory, story, profiles=PROFILES)


def test_in_a_pipe_a_tool_is_denied_at_once(directory: Path) -> None:
    """Whoever is not there is not waited for; stderr says what was denied."""

    def story(run: Running) -> None:
        done = piped(directory, "chat", "--target", run.address, text=fake(v.permission()))
        assert (done.returncode, done.stdout) == (0, "Denied.\n")
        assert "Write note.txt is denied: no person can be asked" in done.stderr

    serve(directory, story, profiles=PROFILES)


def test_send_denies(directory: Path) -> None:
    """`samovar send` asks nobody, with `--json` either."""

    def story(run: Running) -> None:
        to = ("--target", run.address)
        done = piped(directory, "send", fake(v.permission()), *to)
        assert (done.returncode, done.stdout) == (0, "Denied.\n")
        assert "Write note.txt is denied: no person can be asked" in done.stderr
        lines = piped(directory, "send", "--json", fake(v.permission()), *to).stdout
        events = [json.loads(line) for line in lines.splitlines()]
        resolved = [e["resolution"] for e in events if e["event"] == "PermissionResolved"]
        assert resolved == ["denied"]

    serve(directory, story, profiles=PROFILES)


def test_chat_may_have_its_sessions_ask(directory: Path) -> None:
    """`--ask` is the new session's own policy, which a profile may allow or not."""

    def story(run: Running) -> None:
        command = ("chat", "--target", run.address, "--ask")
        done = piped(directory, *command, text=fake(v.permission()))
        assert "no person can be asked" in done.stderr
        refused = piped(directory, *command, "--profile", "never", text="Say x")
        assert refused.returncode == 1
        assert "--ask: not allowed by the profile" in refused.stderr

    profiles = {"default": {"model": "haiku", "allow_ask": True}, "never": {"model": "haiku"}}
    serve(directory, story, profiles=profiles)
