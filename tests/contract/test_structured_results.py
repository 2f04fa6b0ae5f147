"""Promises about results of a given form, on the real CLI."""

import asyncio
import json
from pathlib import Path

import pytest
from support.client_turns import ask, finished, of, started
from support.service import prepare, serving

import samovar
from samovard.app import running
from samovard.core.errors import Misconfigured
from samovard.settings import Settings
from samovard.standin import script, tool

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def profiles(directory: Path) -> dict[str, object]:
    path = directory / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return {"default": {"model": "haiku", "json_schema": path}}


def gives(**fields: object) -> dict[str, object]:
    return tool("StructuredOutput", fields)


def test_each_turns_result_is_of_the_form(directory: Path) -> None:
    """Turn after turn on one process, and on one that was resumed: `result` is the object,
    a first try of another form is refused, and other turns' results are not told again."""

    async def story() -> None:
        async with serving(directory, profiles=profiles(directory)) as run:
            first = await ask(run, script(gives(city="Rome")))
            assert json.loads(finished(first).result) == {"city": "Rome"}
            second = await ask(run, script(gives(town=1), gives(city="Ōsaka")))
            assert json.loads(finished(second).result) == {"city": "Ōsaka"}
            assert started(second).pid == started(first).pid
            refused, taken = of(samovar.ToolResult, second)
            assert (refused.is_error, taken.is_error) == (True, False)
            assert finished(second).result.isascii()
        async with serving(directory, profiles=profiles(directory)) as run:
            third = await ask(run, script(gives(city="Bern")))
            assert started(third).start_mode is samovar.StartMode.RESUMED
            assert json.loads(finished(third).result) == {"city": "Bern"}

    asyncio.run(story())


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_turn_without_a_result_of_the_form_has_failed(directory: Path, stubborn: bool) -> None:
    """A model that answers in words, or never gets the form right, fails the turn; the CLI
    itself takes words for success."""

    async def story() -> None:
        async with serving(directory, profiles=profiles(directory)) as run:
            prompt = script(*[gives(town=1)] * 9) if stubborn else "Say words"
            last = finished(await ask(run, prompt))
            assert last.outcome is samovar.Outcome.FAILED
            assert last.result == ""
            assert last.errors == ("the agent gave no result of the form that was asked for",)

    asyncio.run(story())


@pytest.mark.parametrize("schema", ["", "[]", '{"type": "array"}', "{"])
def test_what_is_no_schema_of_an_object_stops_the_start(directory: Path, schema: str) -> None:
    """The CLI would ignore it without a word."""

    async def story() -> None:
        path = directory / "schema.json"
        path.write_text(schema)
        values = {
            "server": {"listen": "127.0.0.1:0"},
            "state": {"directory": directory},
            "agent": {"cli": await prepare(directory, fake=True)},
            "profiles": {"default": {"model": "haiku", "json_schema": path}},
        }
        with pytest.raises(Misconfigured, match="json_schema"):
            async with running(Settings.model_validate(values)):
                pass

    asyncio.run(story())
