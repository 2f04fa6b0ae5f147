"""The repository keeps its own rules."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from protoc_gen_python import OLDEST, for_oldest

import samovar
import samovard
from samovar.v1 import session_pb2

ROOT = Path(__file__).parent.parent
RELEASING = (ROOT / "docs" / "releasing.md").read_text()


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_no_file_is_longer_than_a_room() -> None:
    """No Python file of ours has more than 400 lines."""
    files = [path for path in tracked("*.py", "*.pyi") if "/samovar/v1/" not in str(path)]
    long = [path.name for path in files if path.exists() and len(_lines(path)) > 400]
    assert not long


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_locks_have_hashes_and_no_addresses() -> None:
    """Each locked package has hashes; a lock says nothing of where packages come from."""
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        packages = re.findall(r"^[a-z0-9][^\s=]*==", text, re.MULTILINE)
        assert len(packages) > 10
        assert text.count("--hash=sha256:") >= len(packages)
        assert "://" not in text
        assert not re.search(r"^--(index|find|extra)", text, re.MULTILINE)


def test_what_is_tested_is_what_runs() -> None:
    """The lock of the tests has every package of the service's lock, in the same version."""
    run, dev = (
        set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("run.txt", "dev.txt")
    )
    assert run
    assert run <= dev


def test_ci_can_be_run() -> None:
    """`.ci/run` has its run bit."""
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_both_distributions_have_one_version() -> None:
    """The service needs the client of its own version."""
    assert samovar.__version__ == samovard.__version__
    assert f'"samovar=={samovard.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_stubs_are_of_this_contract() -> None:
    """The generated code has the service that the protos describe."""
    methods = session_pb2.DESCRIPTOR.services_by_name["Session"].methods_by_name
    proto = (ROOT / "protos" / "samovar" / "v1" / "session.proto").read_text()
    assert sorted(methods) == sorted(re.findall(r"^  rpc (\w+)\(", proto, re.MULTILINE))


def test_stubs_of_a_plain_protoc_fit_beside_ours(directory: Path) -> None:
    """protobuf takes a file twice if its descriptor is the same to the byte: ours is protoc's.

    Only the version differs that the code says it needs.
    """
    protos = [str(path) for path in (ROOT / "protos").rglob("*.proto")]
    options = [f"-I{ROOT / 'protos'}", f"--python_out={directory}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *protos], check=True)
    made = {path.name: for_oldest(path.read_text()) for path in directory.rglob("*_pb2.py")}
    ours = Path(session_pb2.__file__).parent.glob("*_pb2.py")
    assert made == {path.name: path.read_text() for path in ours}


def test_the_stubs_need_the_oldest_protobuf_that_callers_may_have() -> None:
    """The client's dependency begins at the version that the generated code asks for."""
    project = tomllib.loads((ROOT / "clients" / "python" / "pyproject.toml").read_text())
    wanted = f"protobuf>={'.'.join(map(str, OLDEST))},<{OLDEST[0] + 2}"
    assert wanted in project["project"]["dependencies"]
    stubs = [path.read_text() for path in Path(session_pb2.__file__).parent.glob("*_pb2.py")]
    asked = "".join(rf"\s+{part}," for part in OLDEST)
    assert stubs
    assert all(re.search(rf"ValidateProtobufRuntimeVersion\(\s+\S+{asked}", stub) for stub in stubs)


def metadata(project: Path, out: Path) -> Message:
    """Build a distribution both ways, check the licence in each, and return its metadata."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    licence = (ROOT / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as files, tarfile.open(source) as sources:
        (info,) = {name.partition("/")[0] for name in files.namelist() if ".dist-info/" in name}
        assert files.read(f"{info}/licenses/LICENSE") == licence
        inside = [name for name in sources.getnames() if name.endswith("/LICENSE")]
        assert [sources.extractfile(name).read() for name in inside] == [licence]  # type: ignore[union-attr]  # a file
        return message_from_bytes(files.read(f"{info}/METADATA"))


def test_both_distributions_say_what_they_are(directory: Path) -> None:
    """Licence, addresses and classifiers are in both, and the same where they are of both."""
    service = metadata(ROOT, directory / "service")
    client = metadata(ROOT / "clients" / "python", directory / "client")
    for name in (
        "License-Expression",
        "License-File",
        "Keywords",
        "Project-URL",
        "Requires-Python",
    ):
        assert client.get_all(name)
        assert client.get_all(name) == service.get_all(name)
    for kinds in (client.get_all("Classifier", []), service.get_all("Classifier", [])):
        assert "Typing :: Typed" in kinds
        versions = [kind.rpartition(" ")[2] for kind in kinds if re.search(r":: 3\.\d+$", kind)]
        assert f"CPython {', '.join(versions[:-1])} and {versions[-1]}" in RELEASING
