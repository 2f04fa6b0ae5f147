"""The steps of the image, run in a clean directory: what they make and what it can do."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.program import read_until
from support.timeouts import BOUND

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "deploy" / "container"
#: Not a user of this machine, like that of the image.
USER = 10001


@dataclass(frozen=True)
class Image:
    """The two directories that the image's last stage copies."""

    service: Path
    claude: Path

    @property
    def path(self) -> str:
        """The search path of the image, below this root."""
        return f"{self.service}/bin:{self.claude}:/usr/bin:/bin"


def interpreter() -> str:
    """Gives a Python that other users can run: the system's, if it is new enough."""
    asked = "import sys; print(sys.version_info >= (3, 11))"
    system = Path("/usr/bin/python3")
    if system.exists():
        told = subprocess.run([system, "-c", asked], capture_output=True, text=True).stdout
        if told == "True\n":
            return str(system)
    return sys.executable


def install(target: Path) -> "subprocess.CompletedProcess[str]":
    """Runs the step with a compiler that fails, and nothing of this environment."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "TMPDIR": tempfile.gettempdir(),
        "UV": str(Path(sys.executable).with_name("uv")),
        "CC": "false",
        "CXX": "false",
        "RUSTC": "false",
    }
    environ |= {name: value for name, value in os.environ.items() if "CERT" in name}
    command = (STEPS / "install.sh", sys.executable, target, interpreter())
    return subprocess.run(command, env=environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def image(root: Path) -> Iterator[Image]:
    top = Path(tempfile.mkdtemp(prefix="image-", dir=root))
    top.chmod(0o755)
    made = Image(top / "samovar", top / "claude")
    try:
        done = install(made.service)
        if "failed to fetch" in done.stderr.lower() and not os.environ.get("CI"):
            pytest.skip("the packages cannot be fetched: this needs the network")
        assert done.returncode == 0, done.stderr
        subprocess.run([STEPS / "claude.sh", sys.executable, made.claude], check=True)
        yield made
    finally:
        shutil.rmtree(top)


def files(image: Image) -> list[Path]:
    return [path for top in (image.service, image.claude) for path in (top, *top.rglob("*"))]


def digest(top: Path) -> str:
    """Gives a digest of a tree: names, modes, times, contents."""
    found = hashlib.sha256()
    for path in sorted(top.rglob("*")):
        state = path.lstat()
        link = os.readlink(path) if path.is_symlink() else ""
        found.update(f"{path.relative_to(top)} {state.st_mode} {state.st_mtime} {link}".encode())
        if path.is_file() and not path.is_symlink():
            found.update(path.read_bytes())
    return found.hexdigest()


def test_nobody_can_change_what_is_installed(image: Image) -> None:
    """No set-id bit, nothing that a group or others may write, nothing owned by somebody else."""
    for path in files(image):
        state = path.lstat()
        if not path.is_symlink():
            assert not state.st_mode & (stat.S_ISUID | stat.S_ISGID | 0o022), path
        assert state.st_uid == os.getuid(), path


def test_nothing_in_it_is_a_secret(image: Image) -> None:
    """Neither a key nor a file that would hold one, nor a path of the machine that built it."""
    name = re.compile(r"(^\.env|\.key|^pepper|^page_key|^credentials|\.netrc|pip\.conf)$")
    secret = re.compile(rb"sk-ant-[a-z0-9]+-\w|BEGIN [A-Z ]*PRIVATE KEY|samovar_[0-9A-Za-z]{12}_")
    (site,) = image.service.glob("lib/python3*/site-packages")
    ours = {*site.glob("samovar*/**/*"), *image.service.glob("bin/samovar*")}
    for path in files(image):
        assert not name.search(path.name), path
        if path.is_file() and (path in ours or path.suffix == ".pem"):
            assert not secret.search(path.read_bytes()), path
            assert os.fsencode(ROOT) not in path.read_bytes(), path


def test_what_builds_and_what_tests_is_not_in_it(image: Image) -> None:
    """Neither pip nor the build backend, nor the package that carried the CLI."""
    (site,) = image.service.glob("lib/python3*/site-packages")
    names = {path.name.partition("-")[0] for path in site.iterdir()}
    assert {"samovard", "samovar", "grpcio"} <= names
    assert not names & {"pip", "setuptools", "hatchling", "editables", "claude_agent_sdk", "mcp"}
    assert not list(image.service.rglob("claude"))


def test_its_lock_is_a_part_of_what_is_tested() -> None:
    """The image has the service's own dependencies, in the versions of the tests' lock."""
    serve, run = (
        set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("serve.txt", "run.txt")
    )
    assert serve < run


def test_its_lock_has_all_that_the_service_needs() -> None:
    """Each dependency that the distribution names is locked for the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[=>]", dependency)[0] for dependency in project["dependencies"]}
    lock = (ROOT / "requirements" / "serve.txt").read_text()
    assert needed - set(re.findall(r"^(\S+)==", lock, re.MULTILINE)) == {"samovar"}


def test_the_cli_runs_and_cannot_be_read(image: Image) -> None:
    """Mode 0711, with its digest beside it; root owns it where root builds."""
    program, note = image.claude / "claude", image.claude / "claude.sha256"
    assert stat.S_IMODE(program.stat().st_mode) == 0o711
    assert stat.S_IMODE(note.stat().st_mode) == 0o444
    with open(program, "rb") as file:
        assert note.read_text().split()[0] == hashlib.file_digest(file, "sha256").hexdigest()


def test_modules_are_compiled_and_need_no_sources_times(image: Image) -> None:
    """A read-only root starts as fast as another: each module of ours is there compiled."""
    (site,) = image.service.glob("lib/python3*/site-packages")
    for source in (site / "samovard").rglob("*.py"):
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        # Bit 0: checked by hash; bit 1: against the source, at each start.
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, source


def test_building_twice_gives_the_same_tree(image: Image) -> None:
    """Same sources and same place, same bytes."""
    first = digest(image.service)
    shutil.rmtree(image.service)
    assert install(image.service).returncode == 0
    assert digest(image.service) == first


def test_a_cli_that_is_not_the_pinned_one_is_refused(directory: Path) -> None:
    """One line says so, and nothing is installed."""
    package = directory / "claude_agent_sdk"
    (package / "_bundled").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_bundled" / "claude").write_text("another")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(directory)}
    command = (STEPS / "claude.sh", sys.executable, directory / "claude")
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "claude.sh: the CLI is not the pinned one\n")
    assert not (directory / "claude").exists()


def test_the_programs_say_their_version(image: Image, directory: Path) -> None:
    """Both start with nothing around them."""
    for name in ("samovard", "samovar"):
        command = (image.service / "bin" / name, "--version")
        done = subprocess.run(command, env={"PATH": image.path}, capture_output=True, text=True)
        assert done.stdout.startswith(f"{name} "), done.stderr


def test_it_serves_as_a_user_who_owns_nothing(image: Image, directory: Path) -> None:
    """As in a container: another user, a closed CLI, state in the one place that is writable.

    The self-test runs with that CLI, a turn is answered, SIGTERM ends it all with 0.
    """
    directory.chmod(0o700)
    options: dict[str, Any] = {"cwd": directory, "stderr": subprocess.PIPE}
    if os.getuid() == 0:
        os.chown(directory, USER, USER)
        options |= {"user": USER, "group": USER, "extra_groups": []}
    environ = {
        "PATH": image.path,
        "XDG_STATE_HOME": str(directory),
        "TMPDIR": str(directory),
        "SAMOVAR_SERVER__LISTEN": "127.0.0.1:0",
        "SAMOVAR_POOL__SLOTS": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = (image.service / "bin" / "samovard", "serve", "--stand-in-if-no-credential")
    with subprocess.Popen(command, env=environ, **options) as child:
        try:
            said = read_until(child, "try: ")
            target = re.search(r"listens on (\S+)", said)
            assert target
            send = (image.service / "bin" / "samovar", "send", "--target", target[1], "Say OK")
            done = subprocess.run(send, env=environ, capture_output=True, text=True, timeout=BOUND)
            assert done.stdout == "OK\n", done.stderr
            child.terminate()
            assert child.wait(BOUND) == 0
        finally:
            child.kill()
