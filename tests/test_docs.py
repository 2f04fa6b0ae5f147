"""The documentation says what the code does, and everything on it that can be run runs."""

import ast
import asyncio
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check
import pytest
import reference
from support.service import key_for, prepare, serving
from support.timeouts import BOUND

import samovar
from samovard.agent.machine import _CAUSES
from samovard.core import errors
from samovard.core.events import FailureCause
from samovard.core.pool.pooled_process import _LOST
from samovard.edge.status import CODES
from samovard.settings import SettingsError, load

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [*PAGES, *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY"))]
#: Where the examples expect the service: that of `make serve`.
TARGET = "127.0.0.1:50051"
#: Causes that are no literal argument of an error.
PASSED_ON = {"closed", "drained", "process-died", "process-limit", "unproven", "server-restarted"}

Block = tuple[str, str, str]


def blocks(path: Path, language: str) -> list[Block]:
    """Gives blocks of a language: where, the block, and the `text` right behind it."""
    fenced = rf"^```{language}\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?"
    text = path.read_text()
    return [
        (f"{path.name}:{text[: found.start()].count(chr(10)) + 1}", found[1], found[2] or "")
        for found in re.finditer(fenced, text, re.MULTILINE | re.DOTALL)
    ]


def named(found: list[Block]) -> list[object]:
    return [pytest.param(*rest, id=where) for where, *rest in found]


PYTHON = [block for path in PAGES for block in blocks(path, "python")]
TOML = [block for path in TEXTS for block in blocks(path, "toml")]


def test_generated_pages_are_up_to_date() -> None:
    """What is generated is what the generator makes now: else `make generate`."""
    assert reference.stale() == []


def test_contract_and_service_agree_on_codes() -> None:
    """The code that a reason's comment names is the one that the service answers with."""
    told = {reason: code for reason, code, _, _ in reference.reasons()}
    assert told == {reason: code.name for reason, code in CODES.items()}


def test_every_reason_says_what_to_do() -> None:
    """Each reason has a meaning and a next step."""
    for reason, _, meaning, then in reference.reasons():
        assert meaning.endswith("."), reason
        assert then.endswith("."), reason


def test_every_variable_of_the_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is one that the settings know, whatever they think of its value."""
    variables = set(re.findall(r"`(SAMOVAR_\w+)` \|", (DOCS / "configuration.md").read_text()))
    assert len(variables) > 40
    for variable in variables:
        name = variable.replace("__NAME__", "__DEFAULT__")
        monkeypatch.setattr("os.environ", {"HOME": "/home/somebody", name: "?"})
        try:
            load()
        except SettingsError as error:
            assert "not a setting" not in str(error), variable


@pytest.mark.parametrize(("text", "_"), named(TOML))
def test_toml_examples_load(
    text: str, _: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example of settings is taken as it stands."""
    config = directory / "samovard.toml"
    config.write_text(text)
    monkeypatch.setattr("os.environ", {"HOME": "/home/somebody"})
    load(config)


@pytest.mark.parametrize(("code", "said"), named(PYTHON))
def test_python_examples_run(code: str, said: str, directory: Path) -> None:
    """Each example runs against a service, and prints what stands below it."""
    keyed = 'environ["SAMOVAR_API_KEY"]' in code
    asks = "on_permission" in code

    async def story() -> str:
        # A script is for the stand-in, behind the real CLI.
        binary = await prepare(directory, fake="samovar-script:" not in code)
        auth = {"methods": ["api_key" if keyed else "none"]}
        profile = {"model": "haiku", "tools": ["Write"], "permission_policy": "ask"}
        profiles: dict[str, Any] = {"profiles": {"default": profile}} if asks else {}
        async with serving(directory, binary=binary, auth=auth, **profiles) as run:
            key = await key_for(directory, "acme") if keyed else ""
            there = code.replace(TARGET, run.address)
            return await asyncio.to_thread(example, there, key, f"unix:{directory}/operator.sock")

    assert TARGET in code
    assert asyncio.run(story()) == said


def example(code: str, key: str, operator: str) -> str:
    """Runs a program and gives what it printed."""
    environ = {"PYTHONPATH": str(ROOT / "clients" / "python"), "GRPC_ENABLE_FORK_SUPPORT": "0"}
    environ |= {"SAMOVAR_API_KEY": key} if key else {}
    environ["SAMOVAR_OPERATOR"] = operator
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def causes() -> Iterator[tuple[str, str]]:
    """Gives each cause that the server's code names, with the reason where that is clear."""
    for path in (ROOT / "server").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            given = {word.arg: word.value for word in call.keywords}.get("cause")
            made = getattr(errors, getattr(call.func, "id", ""), None)
            if isinstance(given, ast.Constant):
                yield str(given.value), made.reason if made else ""


def explained() -> dict[str, str]:
    text = (DOCS / "errors.md").read_text().partition("## Causes")[2]
    return dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", text, re.MULTILINE))


def test_every_cause_is_explained() -> None:
    """The page has each cause that an error may have, and no others."""
    found = {cause for cause, _ in causes()} | {how.value for how in _LOST} | {*_CAUSES.values()}
    assert set(explained()) == found | PASSED_ON


def test_every_cause_of_a_failure_is_explained() -> None:
    """The page has each cause of the contract, once, and no others."""
    text = (DOCS / "errors.md").read_text()
    named = re.findall(r"^\| `([A-Z_]+)` \|", text.partition("## Why the agent failed")[2], re.M)
    causes = {cause.name for cause in FailureCause} - {"UNSPECIFIED"}
    assert len(named) == len(causes)
    assert set(named) == causes


def test_every_cause_of_a_lost_turn_has_words() -> None:
    """Each cause that the page explains for TURN_LOST is one that the error has words for."""
    lost = {cause for cause, reasons in explained().items() if "`TURN_LOST`" in reasons}
    assert lost == set(errors._LOST)


def test_causes_stand_beside_their_reasons() -> None:
    """Where the code names the error, the page names its reason."""
    told = explained()
    for cause, reason in causes():
        assert not reason or f"`{reason}`" in told[cause], cause


def links() -> Iterator[tuple[Path, str, str]]:
    for path in TEXTS:
        prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if "://" not in target:
                yield path, *target.partition("#")[::2]


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_links_lead_somewhere() -> None:
    """Each link to a file of the repository finds it, and the heading that it names."""
    found = list(links())
    assert len(found) > 15
    for path, target, anchor in found:
        there = path.parent / target if target else path
        assert there.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{path.name}: {target}#{anchor}"


def test_navigation_has_every_page() -> None:
    """`nav` in `mkdocs.yml` names each page once and no other."""
    nav = re.findall(r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(nav) == [path.name for path in PAGES]


def test_the_reference_has_every_public_name() -> None:
    """The page of the Python reference names what the package exports, each once."""
    named = re.findall(
        r"^::: samovar\.(\w+)$", (DOCS / "python-reference.md").read_text(), re.MULTILINE
    )
    assert sorted(named) == sorted(samovar.__all__)


def test_the_site_builds_and_loads_nothing_from_elsewhere(directory: Path) -> None:
    """The site builds without a warning, and no page of it needs the network."""
    if importlib.util.find_spec("mkdocs") is None:
        said = "what builds the documentation is not installed: `make docs` does it"
        # No assert: it would show the environment.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    # Without `-q`, which would hide warnings from `--strict` as well (mkdocs 1.6.1).
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={directory}"]
    environ = {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("INFO ") for line in (done.stdout + done.stderr).splitlines())
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")
    for page in directory.rglob("*.html"):
        assert not loads.findall(page.read_text()), page.name
    pages = (directory / "python-reference.html").read_text()
    assert all(
        f'id="samovar.{name}"' in pages
        for name in (*samovar.__all__, "Client.wait", "compat.StreamingConfig")
    )
    assert inspect.cleandoc(samovar.Client.wait.__doc__ or "").splitlines()[0] in pages
    styles = "".join(path.read_text() for path in directory.rglob("*.css"))
    assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", styles)


def test_hooks_are_the_steps_of_the_check() -> None:
    """pre-commit runs what `make check` runs, in its order, and nothing else."""
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    steps = [check.step(name) for name, _, _ in check.CHECKS]
    assert re.findall(r"^ +- id: (.*)$", text, re.MULTILINE) == steps
    assert re.findall(r"^ +entry: make -s check ARGS=(.*)$", text, re.MULTILINE) == steps
    assert re.findall(r"^ +- repo: (.*)$", text, re.MULTILINE) == ["local"]


def test_a_step_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A hook of a step that was renamed fails instead of checking nothing."""
    assert check.main(["no-step"]) == 1
    assert "no-step" in capsys.readouterr().out


def test_the_tools_of_the_documentation_fit_beside_the_tests() -> None:
    """What both locks have, they have in one version: they share an environment."""
    dev, docs = (
        dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("dev.txt", "docs.txt")
    )
    shared = dev.keys() & docs.keys()
    assert shared
    assert {name: docs[name] for name in shared} == {name: dev[name] for name in shared}
