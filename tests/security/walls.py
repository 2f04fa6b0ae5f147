"""Ways of an agent with a shell to its neighbours and to the service, on the real CLI."""

import secrets
import select
import socket

from support.behind import python

from samovar.v1 import session_pb2 as pb
from samovard.standin import script, text, tool
from security.arena import Arena
from security.catalog import attack

SHELL = pb.SessionSpec(profile="shell")
AROUND = "agent.isolation.walls.Walls.around"


async def shell(arena: Arena, line: str) -> str:
    """Return what a shell of the attacker's agent prints, its errors too."""
    prompt = script(tool("Bash", {"command": f"({line}) 2>&1; echo done"}), text("done"))
    answer = await arena.attacker.turn(prompt, "shell", spec=SHELL)
    (result,) = (e.tool_result for e in answer.events if e.HasField("tool_result"))
    assert "done" in result.text, answer
    return str(result.text)


@attack(AROUND, "real", without="walls")
async def files_of_the_service_and_of_others(arena: Arena) -> None:
    """An agent reads no store, pepper, credential, setting or transcript, and changes none."""
    files = [path for path in arena.directory.rglob("*") if path.is_file()]
    assert {"samovar.db", "pepper", "credential"} <= {path.name for path in files}
    got = "; ".join(f"head -c 1 '{path}' > /dev/null && echo got" for path in files)
    made = "; ".join(f"touch '{path}/made' && echo got" for path in {f.parent for f in files})
    assert "got" not in await shell(arena, f"{got}; {made}; ls {arena.directory} && echo got")


@attack(AROUND, "real", without="walls")
async def environments_of_others(arena: Arena) -> None:
    """Of all processes that an agent can look into, each belongs to its own tree."""
    every = "cat /proc/[0-9]*/environ 2> /dev/null | tr '\\0' '\\n'"
    found = await shell(arena, f"{every} | grep SAMOVAR_PROCESS= | sort -u | wc -l")
    assert found.split() == ["1", "done"], found


@attack(AROUND, "real", without="walls")
async def signals_to_the_service(arena: Arena) -> None:
    """No signal of an agent reaches the service."""
    assert "told" not in await shell(arena, f"kill -CONT {arena.child.pid} && echo told")


@attack(AROUND, "real", without="walls")
async def the_services_port(arena: Arena) -> None:
    """No agent can call the service, by any address of this machine."""
    port = int(arena.address.rpartition(":")[2])
    hosts = '("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0")'
    tried = f"[socket.socket().connect_ex((host, {port})) for host in {hosts}]"
    found = await shell(arena, python(f"import socket; print(0 in {tried})"))
    assert found.split() == ["False", "done"], found


@attack(AROUND, "real", without="walls")
async def datagrams_to_this_machine(arena: Arena) -> None:
    """What an agent sends arrives nowhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        where = f'("127.0.0.1", {heard.getsockname()[1]})'
        send = f'socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", {where})'
        await shell(arena, python(f"import socket; {send}"))
        assert not select.select([heard], [], [], 0)[0]


@attack(AROUND, "real", without="walls")
async def abstract_sockets(arena: Arena) -> None:
    """An agent connects to no socket without a path."""
    name = f"samovar-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as heard:
        heard.bind(f"\0{name}")
        heard.listen()
        call = f'socket.socket(socket.AF_UNIX).connect_ex("\\0{name}")'
        found = await shell(arena, python(f"import socket; print({call} == 0)"))
        assert found.split() == ["False", "done"], found
