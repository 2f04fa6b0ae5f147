"""Ways of an agent with a shell to its neighbours and to the service, on the real CLI."""

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
