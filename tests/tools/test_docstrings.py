"""The check of docstrings finds what reads oddly, and nothing else."""

from pathlib import Path

import docstrings
import pytest

SERVER = Path("server/samovard")


def moods(*texts: str) -> list[str]:
    source = "\n".join(f"def f():\n    {text!r}" for text in texts)
    return [wrong for _, wrong in docstrings.moods(source)]


@pytest.mark.parametrize(
    "text",
    ["Gives a name.", "Waits for it.", "Is it there?", "Turns the key.", "Frobs each line."],
)
def test_a_verb_in_the_third_person_is_refused(text: str) -> None:
    """Verbs of the list are found before anything, others before an article."""
    assert moods(text) == [f"begins in the third person: {text.split()[0]}"]


@pytest.mark.parametrize(
    "text",
    [
        "Return a name.",
        "True if it is there.",
        "Called when it is there.",
        "Raise `X` if it is not.",
        "Pass the bytes on.",
        "Turns that wait.",
        "Counts of turns.",
        "Sessions and turns: the core's `Records`.",
        "Process the lines.",
        "`HOME` of the agent.",
        "Keys by their id. Knows JWKS.",
    ],
)
def test_imperatives_facts_and_plurals_are_accepted(text: str) -> None:
    """A plural at the beginning is no verb, and what a module knows is a fact."""
    assert moods(text) == []


def test_what_is_returned_and_raised_is_said_in_the_imperative() -> None:
    """Later sentences are looked at, too."""
    assert moods("Find it. Raises `X`.\n\nReturns\na name.") == [
        "goes on in the third person: Raises",
        "goes on in the third person: Returns",
    ]


def test_attributes_and_classes_are_looked_at() -> None:
    """Each string that documents something is a docstring; any other string is none."""
    source = 'A = 1\n"""Gives it."""\n\n\nclass B:\n    """Keeps it."""\n\n    c = "Takes it."\n'
    assert [line for line, _ in docstrings.moods(source)] == [2, 6]


def test_who_is_meant_is_named() -> None:
    """Docstrings and comments name clients and tenants; code may say what it likes."""
    source = '"""For whoever\nreads."""\na = 1  # Nobody waits.\nnobody = "whoever"\n'
    assert list(docstrings.stand_ins(source)) == [
        (1, "name what is meant: whoever"),
        (3, "name what is meant: Nobody"),
    ]


def test_a_sentence_stands_three_times_at_most() -> None:
    """Words alone, references and units may be repeated."""
    source = '"""Do it. Knows\nno such thing. Idempotent. See `X`. In seconds."""\n'
    assert docstrings.repeated([source] * 3) == []
    assert docstrings.repeated([source] * 4) == [
        "stands in 4 docstrings: Do it.",
        "stands in 4 docstrings: Knows no such thing.",
    ]


def test_helpers_of_tests_are_checked_and_generated_code_is_not() -> None:
    """The files are those that people write and others read."""
    files = {str(path.relative_to(docstrings.ROOT)) for path in docstrings.files()}
    assert {"tests/support/world.py", "tools/docstrings.py", "bench/run.py"} <= files
    assert str(SERVER / "app.py") in files
    assert not any("samovar/v1/" in name or "/test_" in name for name in files)
