"""Check that docstrings and comments read like those of the standard library.

A docstring begins in the imperative or as a statement of fact: "Return …", "True if …", "Called
when …"; never in the third person. Clients, tenants and processes are named, not paraphrased, and
no sentence is repeated all over the tree. What ruff's D401 checks beside that is not wanted: it
also refuses "True if …", "Called when …" and every noun behind an article.
"""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("server", "clients/python", "bench", "tests", "tools")
EXCLUDED = (
    "clients/python/samovar/v1/",  # generated
)
#: Verbs in the third person with which docstrings began, without those that are plurals as well.
VERBS = re.compile(
    "Adds|Admits|Appends|Asks|Becomes|Begins|Binds|Breaks|Brings|Builds|Burns|Cancels|"
    "Chooses|Claims|Cleans|Closes|Collects|Compiles|Converts|Creates|Cuts|Decides|"
    "Decodes|Denies|Divides|Does|Draws|Drives|Ensures|Enters|Erases|Expects|Fails|Falls|"
    "Fetches|Fills|Finds|Follows|Forgets|Generates|Gets|Gives|Goes|Has|Hears|Holds|"
    "Ignores|Is|Keeps|Kills|Knows|Lays|Leads|Learns|Leaves|Lets|Lives|Looks|Loses|Makes|"
    "Measures|Mends|Obeys|Opens|Orders|Owns|Passes|Picks|Prepares|Prints|Puts|Raises|"
    "Reads|Reaps|Receives|Refuses|Rejects|Releases|Removes|Renews|Repeats|Replaces|"
    "Returns|Revokes|Runs|Saves|Says|Selects|Sends|Serves|Sets|Shows|Skips|Sorts|Spawns|"
    "Speaks|Splits|Stays|Stores|Strikes|Takes|Talks|Tells|Thinks|Throws|Tries|Types|"
    "Undoes|Uses|Verifies|Waits|Watches|Wraps|Writes|Yields"
)
#: What follows a verb, and no plural: so "Turns a" and "Counts each" are found as well.
_OBJECT = "a|an|the|its|it|each|every|all|any|no|one|how|what|whether|which|until|if|so"
_FIRST = re.compile(rf"(?P<word>[A-Z][a-z]*(?<!s)s)\b(?P<object>\s+(?:{_OBJECT})\b)?")
#: Sentences further down in the third person that have a form in the imperative.
_LATER = re.compile(r"(?:Returns|Raises|Yields|Gives|Tells|Says)\b")
_STAND_IN = re.compile(r"\b(?:whoever|whomever|nobody|anybody|somebody|whatever happens)\b", re.I)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
#: Sentences that may be repeated: a single word, a reference and a unit.
_FREE = re.compile(r"\S*|See `[^`]+`\.|[Ii]n (?:milli)?seconds\.|In bytes\.")
#: How often any other sentence may stand in docstrings.
MOST = 3

Found = tuple[int, str]


def mistakes() -> list[str]:
    """Return a line for each mistake in the tree: its place, and what is wrong."""
    texts = {path: path.read_text() for path in files()}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {wrong}"
        for path, text in texts.items()
        for line, wrong in sorted([*moods(text), *stand_ins(text)])
    ]
    return [*found, *repeated(texts.values())]


def files() -> list[Path]:
    """Return the Python files whose language is checked; those of tests are their helpers."""
    every = (path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py")))
    return [
        path
        for path in every
        if not path.name.startswith("test_")
        and not str(path.relative_to(ROOT)).startswith(EXCLUDED)
    ]


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a source with their lines, those of attributes among them."""
    for node in ast.walk(ast.parse(text)):
        for child in ast.iter_child_nodes(node):
            value = child.value if isinstance(child, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.lineno, value.value


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments of a source with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def moods(text: str) -> Iterator[Found]:
    """Yield the docstrings that begin, or go on, in the third person."""
    for line, docstring in docstrings(text):
        first, *later = sentences(docstring)
        match = _FIRST.match(first)
        if match and (match["object"] or VERBS.fullmatch(match["word"])):
            yield line, f"begins in the third person: {match['word']}"
        for sentence in later:
            if match := _LATER.match(sentence):
                yield line, f"goes on in the third person: {match[0]}"


def sentences(docstring: str) -> list[str]:
    """Return the sentences of a docstring, each on one line."""
    return [" ".join(each.split()) for each in _SENTENCE.split(docstring.strip())]


def stand_ins(text: str) -> Iterator[Found]:
    """Yield the words that stand for a client, a tenant or a process without naming it."""
    for line, prose in (*docstrings(text), *comments(text)):
        for match in _STAND_IN.finditer(prose):
            yield line, f"name what is meant: {match[0]}"


def repeated(texts: Iterable[str]) -> list[str]:
    """Return the sentences that stand word for word in more than `MOST` docstrings."""
    places: dict[str, int] = defaultdict(int)
    for text in texts:
        for _, docstring in docstrings(text):
            for sentence in set(sentences(docstring)):
                places[sentence] += not _FREE.fullmatch(sentence)
    return [
        f"stands in {count} docstrings: {sentence}"
        for sentence, count in sorted(places.items())
        if count > MOST
    ]
