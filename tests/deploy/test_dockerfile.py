"""The Dockerfile: what it promises can be read in it."""

import importlib.util
import json
import os
import re
import subprocess
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import samovard

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "deploy" / "container").glob("*.sh"))

Step = tuple[str, str]


def stages() -> list[list[Step]]:
    """Gives the steps of each stage: the instruction and the rest of it, on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[list[Step]] = [[]]
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if word:
            found[-1].append((word, re.sub(r"\s+", " ", rest)))
    return found[1:]


def of(stage: list[Step], word: str) -> list[str]:
    return [rest for found, rest in stage if found == word]


def arguments() -> dict[str, str]:
    text = (ROOT / "Dockerfile").read_text()
    return dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))


def copied() -> list[str]:
    """Gives what comes from the context."""
    steps = [rest for stage in stages() for rest in of(stage, "COPY") if "--from=" not in rest]
    return [source for rest in steps for source in rest.split()[:-1]]


def ignored(path: str) -> bool:
    """Tells what `.dockerignore` says of a path: the last rule that fits it decides."""
    says = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").removeprefix("**/")
        parents = [path, *map(str, Path(path).parents)]
        anywhere = [Path(parent).name for parent in parents] if "**/" in rule else []
        if any(fnmatch(name, pattern) for name in (*parents, *anywhere)):
            says = not rule.startswith("!")
    return says


def test_bases_have_a_version() -> None:
    """Both stages stand on one base, of a named version and not on whatever is newest."""
    assert [of(stage, "FROM")[0].split()[0] for stage in stages()] == ["${BASE}"] * 2
    assert re.fullmatch(r"[a-z]+:\d+\.\d+-slim", arguments()["BASE"])


def test_the_service_runs_as_nobody_in_particular() -> None:
    """The user is a number that is not root's: platforms check it without reading passwd."""
    assert of(stages()[-1], "USER") == ["10001:10001"]
    assert "--uid 10001" in (ROOT / "deploy" / "container" / "system.sh").read_text()


def test_signals_and_orphans_are_tinis() -> None:
    """The first process reaps and passes signals on; no shell stands between."""
    (entry,), (command,) = (of(stages()[-1], word) for word in ("ENTRYPOINT", "CMD"))
    assert json.loads(entry) == ["/usr/bin/tini", "--", "samovard"]
    assert json.loads(command) == ["serve"]


def test_labels_tell_the_versions_that_are_in_it() -> None:
    """The service's version, the CLI's, and the revision that the builder names."""
    (labels,) = of(stages()[-1], "LABEL")
    told = dict(re.findall(r'(\S+)="\$\{(\w+)\}"', labels))
    assert told["org.opencontainers.image.version"] == "VERSION"
    assert told["org.opencontainers.image.revision"] == "REVISION"
    assert told["samovar.claude.version"] == "CLAUDE_VERSION"
    assert arguments()["VERSION"] == samovard.__version__


def test_the_cli_of_the_label_is_the_locks() -> None:
    """The locked package is what is installed here, and brings the CLI that the label tells."""
    lock = (ROOT / "requirements" / "run.txt").read_text()
    assert f"claude-agent-sdk=={version('claude-agent-sdk')}" in lock
    spec = importlib.util.find_spec("claude_agent_sdk")
    assert spec
    assert spec.origin
    told = Path(spec.origin).with_name("_bundled") / "claude.version"
    assert told.read_text().split()[0] == arguments()["CLAUDE_VERSION"]


def test_what_is_copied_is_there_and_sent_to_the_builder() -> None:
    """Each source exists, and `.dockerignore` lets it through."""
    assert len(copied()) > 5
    for source in copied():
        assert (ROOT / source).exists(), source
        files = [path for path in (ROOT / source).rglob("*") if path.suffix in {".py", ".sh"}]
        for path in (ROOT / source, *files):
            assert not ignored(str(path.relative_to(ROOT))) or path.is_dir(), path


def test_nothing_else_is_sent_to_the_builder() -> None:
    """Neither history nor state, keys or an environment can get into an image by accident."""
    for name in (".git/config", ".venv/bin/python", ".state/pepper", "samovard.toml", ".env"):
        assert ignored(name), name
    assert ignored("server/samovard/__pycache__/app.cpython-311.pyc")
    for path in ROOT.iterdir():
        wanted = any(source.split("/")[0] == path.name for source in copied())
        assert ignored(path.name) or wanted, path.name


def test_each_script_is_used_and_can_be_run() -> None:
    """No step is tested that the image does not take."""
    text = (ROOT / "Dockerfile").read_text()
    assert len(SCRIPTS) == 3
    for script in SCRIPTS:
        assert re.search(rf"container/{script.name}\b", text), script
        assert os.access(script, os.X_OK)
        subprocess.run(["sh", "-n", script], check=True)


def test_no_secret_is_an_argument_of_the_build() -> None:
    """What a build is told stays in the image's history."""
    assert set(arguments()) == {
        "BASE",
        "SOURCE_DATE_EPOCH",
        "VERSION",
        "CLAUDE_VERSION",
        "REVISION",
    }
