"""The commands of the documentation: each that can run here runs, and prints what is below it."""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from support.program import environ
from support.service import key_for, prepare, serving
from support.timeouts import BOUND
from test_docs import ROOT, TEXTS

from samovar.v1 import pool_pb2, pool_pb2_grpc, session_pb2
from samovard.store.sqlite.backup import back_up
from samovard.store.sqlite.database import Database

#: What does not run here, and why.
ELSEWHERE = {
    "docker": "needs Docker",
    "gcloud": "needs an account",
    "kubectl": "needs a cluster",
    "helm": "needs a cluster; tests/deploy/test_chart.py renders it",
    "envoy": "tests/deploy/test_envoy.py runs it",
    "deploy/envoy/descriptors.sh": "tests/deploy/test_envoy.py runs it",
    "curl": "tests/deploy/test_envoy.py runs it",
    "grpcurl": "its requests are sent below",
    "go": "tests/clients/test_go.py runs it",
    "npm": "tests/clients/test_typescript.py runs it",
    "node": "tests/clients/test_typescript.py runs it",
    "pip": "fetches packages",
    "python": "fetches packages",
    "check/bin/pip": "fetches packages",
    "check/bin/samovard": "is of those packages",
    "source": "is for a shell",
    "systemctl": "needs systemd",
    "tar": "tests/store/sqlite/test_backup.py runs it",
    "make": "its target is looked up below",
    ".ci/run": "runs these tests",
}
SEPARATOR = "\x1e"
PAGES = [*TEXTS, ROOT / "clients" / "python" / "README.md"]

Command = tuple[str, list[str]]


def commands(block: str) -> Iterator[Command]:
    """Return each command of a block, with the lines that it prints."""
    command = ""
    printed: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line[2:], []
        elif command.endswith("\\"):
            command = f"{command[:-1]}{line.strip()}"
        elif command:
            printed.append(line)
    if command:
        yield command, printed


def blocks() -> Iterator[tuple[str, list[Command]]]:
    for path in PAGES:
        text = path.read_text()
        for found in re.finditer(r"^( *)```console\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            block = re.sub(f"^{found[1]}", "", found[2], flags=re.MULTILINE)
            yield f"{path.name}:{text[: found.start()].count(chr(10)) + 1}", [*commands(block)]


def program(command: str) -> str:
    """Return the program of a command, without variables before it."""
    return re.sub(r"^(\w+=(\"[^\"]*\"|\S*) )*", "", command).split()[0]


def here(found: list[tuple[str, list[Command]]]) -> Iterator[tuple[str, list[Command]]]:
    """Return the blocks that have something to run which no block before them has."""
    seen: list[Command] = []
    for where, block in found:
        fresh = [c for c in block if program(c[0]) not in ELSEWHERE and c not in seen]
        if fresh:
            yield where, block
        seen += fresh


BLOCKS = [*blocks()]
HERE = [pytest.param(block, id=where) for where, block in here(BLOCKS)]


def test_each_make_target_is_there() -> None:
    """Whatever a page says `make` makes, it makes."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for where, block in BLOCKS:
        for command, _ in block:
            if program(command) == "make":
                words = re.sub(r"^.*?make ", "", command.partition("#")[0]).split()
                assert words[0] in targets, where


@pytest.mark.parametrize("block", HERE)
def test_commands_run(block: list[Command], directory: Path) -> None:
    """One after another in one shell, with a service where the examples expect it."""
    if any(program(command) == "jq" for command, _ in block) and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    keyed = any("SAMOVAR_API_KEY" in command for command, _ in block)
    real = any("samovar-script:" in command for command, _ in block)
    stopped = any("systemctl stop" in command for command, _ in block)
    kept = any(re.match("samovard (store|tenants)", c) for c, _ in block) and not stopped

    async def story() -> list[tuple[str, int]]:
        binary = await prepare(directory, fake=not real)
        auth = {"methods": ["api_key" if keyed else "none"]}
        if kept:
            # Before: to open a store twice in one process takes its locks off it.
            await key_for(directory, "acme")
        async with serving(directory, binary=binary, auth=auth) as run:
            variables = {
                "SAMOVAR_TARGET": run.address,
                "SAMOVAR_OPERATOR": f"unix:{directory}/operator.sock",
                # Its own store, or one that no service uses.
                "SAMOVAR_STATE__DIRECTORY": str(directory if kept else directory / "state"),
            }
            if stopped:
                await copied(directory)
            key = await key_for(directory, "acme") if keyed else ""
            lines = [placed(command, run.address, run.service.probes, key) for command, _ in block]
            return await asyncio.to_thread(shell, lines, directory, variables)

    for (command, printed), (said, code) in zip(block, asyncio.run(story()), strict=True):
        if program(command) in ELSEWHERE:
            continue
        assert code == 0 or any("samovar: " in line for line in printed), (command, said)
        if printed:
            assert masked(said.splitlines()) == masked(printed), command


async def copied(directory: Path) -> None:
    """Make the store of a service that is stopped, and a copy of it."""
    (directory / "state").mkdir(mode=0o700)
    store = directory / "state" / "samovar.db"
    async with Database(f"sqlite:///{store}"):
        back_up(store, directory / "samovar-backup.db")


def placed(command: str, address: str, probes: str, key: str) -> str:
    """Return a command as it can run here; what cannot does nothing."""
    if program(command) in ELSEWHERE:
        return ":"
    # What would serve until it is stopped reads the same settings.
    command = command.replace("samovard serve", "samovard check")
    command = command.replace("127.0.0.1:50051", address).replace("127.0.0.1:50052", probes)
    return re.sub(r"samovar_\S*\.\.\.", key, command)


def shell(lines: list[str], directory: Path, variables: dict[str, str]) -> list[tuple[str, int]]:
    """Run lines in one shell; return what each prints, errors too, and its exit code."""
    there = directory / "there"
    there.mkdir()
    if (copy := directory / "samovar-backup.db").exists():
        copy.rename(there / copy.name)
    (there / "audit.jsonl").symlink_to(directory / "audit.jsonl")
    (there / "samovard.toml").write_text("[pool]\nslots = 8\n")
    given = environ(**variables)
    given["PATH"] = f"{Path(sys.executable).parent}:{given['PATH']}"
    end = f"}} 2>&1; printf '%s' \"{SEPARATOR}$?{SEPARATOR}\""
    script = "\n".join(f"{{ {line}\n{end}" for line in lines)
    done = subprocess.run(
        ["bash", "-c", script], cwd=there, env=given, capture_output=True, text=True, timeout=BOUND
    )
    parts = done.stdout.split(SEPARATOR)
    return [(said, int(code)) for said, code in zip(parts[:-1:2], parts[1::2], strict=True)]


def masked(lines: list[str]) -> list[list[str]]:
    """Return the words of lines; ids, paths, times and numbers are all the same."""
    return [
        ["#" if re.search(r"\d|^/|^samovar_|^\w{12}$", word) else word for word in line.split()]
        for line in lines
    ]


def test_a_program_is_either_run_or_known_not_to(directory: Path) -> None:
    """What is not run here is in a page: the list holds nothing else."""
    named = {program(command) for _, block in BLOCKS for command, _ in block}
    assert named >= ELSEWHERE.keys()


def requests() -> Iterator[tuple[str, str]]:
    """Return method and body of each call by grpcurl."""
    for _, block in BLOCKS:
        for command, _ in block:
            if program(command) == "grpcurl":
                body = re.search(r"-d '(.*?)'", command)
                assert body
                yield command.split()[-1], body[1]


def test_what_grpcurl_sends_is_taken(directory: Path) -> None:
    """On a fresh service, by the stubs of the same contract."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            operator = grpc.aio.insecure_channel(f"unix:{directory}/operator.sock")
            stubs: dict[str, tuple[Any, Any]] = {
                "samovar.v1.Session": (run.stub, session_pb2),
                "samovar.v1.Pool": (pool_pb2_grpc.PoolStub(operator), pool_pb2),
            }
            async with operator:
                for method, body in requests():
                    service, _, name = method.partition("/")
                    stub, messages = stubs[service]
                    request = json_format.Parse(body, getattr(messages, f"{name}Request")())
                    call = getattr(stub, name)(request)
                    if name == "Send":
                        assert [response async for response in call]
                    else:
                        await call

    assert len([*requests()]) >= 2
    asyncio.run(story())
