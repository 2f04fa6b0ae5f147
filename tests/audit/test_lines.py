"""The lines of the audit log, and the page that explains them."""

import json
import re
from pathlib import Path

import pytest

from samovard.audit import lines

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
SECTIONS = {
    section.partition("\n")[0]: section
    for section in PAGE.partition("\n## Lines\n")[2].partition("\n## ")[0].split("\n### ")[1:]
}


def event(line: type[lines.Line]) -> str:
    return str(line.__struct_config__.tag)


def test_the_page_has_every_event() -> None:
    """In the order of the code, and no other."""
    assert list(SECTIONS) == [event(line) for line in lines.LINES]


@pytest.mark.parametrize("line", lines.LINES, ids=event)
def test_the_page_has_every_field(line: type[lines.Line]) -> None:
    """A table of each event's fields, in the order in which a line has them."""
    told = re.findall(r"^\| `(\w+)` \|", SECTIONS[event(line)], re.MULTILINE)
    assert told == list(line.__struct_fields__)


def test_a_line_is_one_line() -> None:
    """Whatever a name from outside holds, it is JSON on one line, with the time in UTC."""
    moment = lines.at(1_700_000_000.25)
    odd = 'a\nb\x00\u2028\ud7ff\U0001f600"}'
    made = lines.Act(
        time=moment, act=odd, user=odd, tenant="", credential="", scopes=[odd], count=0
    )
    text = made.encoded()
    assert text.count(b"\n") == 1
    found = json.loads(text)
    assert found == {
        "event": "act",
        "time": "2023-11-14T22:13:20.250000Z",
        "act": odd,
        "user": odd,
        "tenant": "",
        "credential": "",
        "scopes": [odd],
        "count": 0,
    }
