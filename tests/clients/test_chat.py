"""A conversation: sessions, commands, interrupts and refusals, against the service."""

from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.chat_conversation import Talk, talking

import samovar
from samovar.chat.commands import COMMANDS
from samovar.chat.conversation import new_name


def test_messages_go_to_one_warm_process(directory: Path) -> None:
    """The second message is answered by the process of the first; the name is told."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        name = talk.conversation.session
        assert name.startswith("chat-") and f"--session {name}" in talk.seen.told[0]
        assert talk.send("Say one")
        first = talk.seen.last(samovar.TurnStarted)
        assert talk.send("Say two")
        second = talk.seen.last(samovar.TurnStarted)
        assert second.start_mode is samovar.StartMode.WARM
        assert (first.pid, first.session_id) == (second.pid, second.session_id)
        assert talk.seen.said == "onetwo"

    talking(directory, story)


def test_a_conversation_on_the_real_cli(directory: Path) -> None:
    """Two messages to the CLI itself, one conversation."""

    def story(talk: Talk) -> None:
        talk.conversation.begin("real")
        assert talk.send("Say one") and talk.send("Say two")
        assert talk.seen.said == "onetwo"
        assert talk.seen.last(samovar.TurnStarted).process_turn == 2

    talking(directory, story, fake=False)


def test_an_interrupt_keeps_the_session(directory: Path) -> None:
    """A wish to stop ends the turn as interrupted; the same process answers next."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        talk.seen.stop_at = ("here", 0)
        assert not talk.send(fake(v.text("here"), v.hang()))
        assert talk.seen.last(samovar.TurnFinished).outcome is samovar.Outcome.INTERRUPTED
        assert talk.seen.told[1:] == ["interrupting"]
        pid = talk.seen.last(samovar.TurnStarted).pid
        talk.seen.stop_at = None
        assert talk.send("Say on")
        assert talk.seen.last(samovar.TurnStarted).pid == pid

    talking(directory, story)


def test_a_second_wish_leaves_the_turn(directory: Path) -> None:
    """Leaving does not wait for the agent; it is told, and the conversation goes on."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        talk.seen.stop_at = ("here", 1)
        assert not talk.send(fake(v.text("here"), v.hang()))
        assert talk.seen.told[-1].startswith("left: ")
        assert talk.conversation.session

    talking(directory, story)


def test_a_session_that_exists_goes_on(directory: Path) -> None:
    """`begin` with the name of a session tells how far it is, and continues it."""

    def story(talk: Talk) -> None:
        talk.client.ask("Say one", session="old")
        talk.conversation.begin("old")
        assert talk.seen.told == ["session old goes on: 1 turn so far"]
        assert talk.send(fake(v.history()))
        assert "Say one" in talk.seen.said

    talking(directory, story)


def test_commands_go_from_session_to_session(directory: Path) -> None:
    """`/new` begins, `/session` goes back, `/sessions` lists; each has its own memory."""

    def story(talk: Talk) -> None:
        talk.conversation.begin("a")
        talk.obey("Say one")
        assert talk.obey("/new b") == ["session b"]
        talk.obey("Say two")
        assert talk.obey("/session a") == ["session a goes on: 1 turn so far"]
        talk.obey(fake(v.history()))
        assert '"Say one"' in talk.seen.said and '"Say two"' not in talk.seen.said
        talk.obey("/sessions")
        assert talk.seen.listed == [(["a", "b"], "a")]
        talk.obey("/new")
        assert talk.conversation.session.startswith("chat-")

    talking(directory, story, model="opus")


def test_what_cannot_be_done_is_told(directory: Path) -> None:
    """Unknown commands, missing names, wrong sessions: one line each, nothing changes."""

    def story(talk: Talk) -> None:
        talk.conversation.begin("a")
        talk.obey("Say one")
        assert talk.obey("/nonsense x") == ["there is no command /nonsense: /help lists them"]
        assert talk.obey("/session") == ["it is /session NAME"]
        assert talk.obey("/session b") == ["there is no session b: /new b begins it"]
        assert talk.obey("/new a") == ["there is a session a already: /session a goes to it"]
        assert len(talk.obey("/new NOT!")) == 1
        assert len(talk.obey("/help")) > len(COMMANDS)
        assert talk.obey("  ") == []
        assert talk.conversation.session == "a"
        assert not talk.commands.obey("/quit")

    talking(directory, story)


def test_two_slashes_begin_a_message(directory: Path) -> None:
    """A message may begin with a slash: it is typed twice."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        assert talk.obey("//usr is a path") == []
        assert "/usr is a path" in talk.seen.said
        assert "//usr" not in talk.seen.said

    talking(directory, story)


def test_a_busy_session_is_told_and_the_conversation_goes_on(directory: Path) -> None:
    """While another caller has the session a message is refused in a line; later it is not."""
    gate = directory / "gate"

    def story(talk: Talk) -> None:
        talk.conversation.begin("s")
        with talk.client.send(fake(v.gate(gate)), session="s") as other:
            assert isinstance(next(other), samovar.TurnStarted)
            assert not talk.send("Say no")
            assert len(talk.seen.told) == 2 and "\n" not in talk.seen.told[1]
            gate.touch()
            list(other)
        assert talk.send("Say yes")

    talking(directory, story, queue=0)


def test_a_turn_left_before_it_was_sent_is_not_sent(directory: Path) -> None:
    """Leaving at once is told as leaving, and the next message is the first."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        talk.seen.leave_first = True
        assert not talk.send("Say no")
        assert talk.seen.told[-1].startswith("left: ")
        talk.seen.leave_first = False
        assert talk.send(fake(v.history()))
        assert "Say no" not in talk.seen.said

    talking(directory, story)


def test_a_failed_turn_is_not_completed(directory: Path) -> None:
    """What the agent reports is in the stream; the next message may work."""

    def story(talk: Talk) -> None:
        talk.conversation.begin()
        assert not talk.send(fake(v.api_error()))
        assert talk.send("Say yes")

    talking(directory, story)


def test_nobody_there_is_an_error_of_the_beginning(directory: Path) -> None:
    """Where nothing listens `begin` raises."""
    with samovar.Client(f"unix:{directory / 'none'}") as client:
        with pytest.raises(samovar.CallBroken):
            Talk(client, "").conversation.begin()


def test_names_are_new() -> None:
    """Names of new sessions differ, and are names."""
    names = {new_name() for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) == 13 for name in names)
