"""What is configuration parses, and its linters have nothing to say."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from support.optional_tools import passes, tool

ROOT = Path(__file__).parents[2]
#: Templates are no YAML before they are rendered (`test_chart.py`).
TEMPLATES = ROOT / "deploy" / "kubernetes" / "templates"


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in paths if TEMPLATES not in path.parents and path.exists()]


YAML = tracked("*.yaml", "*.yml")
JSON = tracked("*.json")


def test_yaml_is_clean() -> None:
    """Every YAML file of the repository passes yamllint."""
    assert len(YAML) > 5
    passes(tool("yamllint", "make test sets it up"), "--strict", "-c", ROOT / ".yamllint", *YAML)


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_parses(path: Path) -> None:
    """Each document of each file is a table or a list."""
    found = list(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))
    assert found
    assert all(isinstance(document, (dict, list)) for document in found)


@pytest.mark.parametrize("path", JSON, ids=lambda path: str(path.relative_to(ROOT)))
def test_json_parses(path: Path) -> None:
    """Each file is JSON, and no key of a table is there twice."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        assert len(table) == len(pairs), [key for key, _ in pairs]
        return table

    json.loads(path.read_text(), object_pairs_hook=once)


def test_the_dockerfile_is_clean() -> None:
    """Hadolint has nothing to say."""
    passes(tool("hadolint"), "--no-color", ROOT / "Dockerfile")
