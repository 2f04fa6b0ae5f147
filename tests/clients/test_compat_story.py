"""How `samovar.compat` tells events, without a service."""

import dataclasses

import pytest
from support.recordings import fits, recording

import samovar
from samovar import compat
from samovar.compat import StreamingConfig


def story_of(*, partial: bool) -> compat._Story:
    return compat._Story("s", lambda cost: cost, partial=partial)


def said(text: str, message: str, index: int = 0, parent: str = "") -> samovar.TextDelta:
    return samovar.TextDelta(message, index, text, sequence=1, time=0.0, parent_tool_use_id=parent)


def test_abandoned_blocks_are_not_told() -> None:
    """A block whose deltas are void never comes; the stream says so as the CLI's does."""
    story = story_of(partial=True)
    void = samovar.BlocksAbandoned("m", 1, sequence=1, time=0.0)
    events = [said("kept", "m"), said("void", "m", 1), void, said("again", "n")]
    end = samovar.TurnFinished(samovar.Outcome.COMPLETED, "again", sequence=1, time=0.0)
    told = [line for event in [*events, end] for line in story.tell(event)]
    texts = [line["message"]["content"][0]["text"] for line in told if "message" in line]
    assert texts == ["kept", "again"]
    (stop,) = [line for line in told if "abandoned_blocks" in line]
    assert stop["abandoned_blocks"] == {"api_message_id": "m", "from_block_index": 1}
    recorded = next(x for _, x in recording("stream-restarted").lines if "abandoned_blocks" in x)
    assert fits(stop, recorded)


def test_a_sub_agent_does_not_cut_a_block() -> None:
    """What a sub-agent says in between comes as its own block, with its parent."""
    story = story_of(partial=True)
    long = "s" * (1 << 18)
    pieces = [said(long, "n", parent="toolu"), said("ub", "n", parent="toolu")]
    events = [said("a", "m"), *pieces, said("b", "m")]
    end = samovar.TurnFinished(samovar.Outcome.COMPLETED, "ab", sequence=1, time=0.0)
    told = [line for event in [*events, end] for line in story.tell(event)]
    blocks = [line for line in told if line["type"] == "assistant"]
    assert [line["message"]["content"][0]["text"] for line in blocks] == [f"{long}ub", "ab"]
    assert [line["parent_tool_use_id"] for line in blocks] == ["toolu", None]


def test_a_cut_input_is_given_as_it_is() -> None:
    """An input whose end is missing is no JSON: the block says so."""
    story = story_of(partial=False)
    use = samovar.ToolUse("t", "Write", '{"a": "b', 9, sequence=1, time=0.0)
    (line,) = story.tell(use)
    made = line["message"]["content"][0]
    assert (made["input"], made["input_json"]) == ({}, '{"a": "b')
    assert made["input_truncated_bytes"] == 9


def test_a_configuration_is_a_value_without_secrets_in_sight() -> None:
    """It cannot be changed, and its `repr` does not show the key."""
    config = StreamingConfig(api_key="secret")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model = "x"  # type: ignore[misc]
    assert "secret" not in repr(config)
