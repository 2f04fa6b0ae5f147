"""The conversation on disk: `projects/<cwd>/<uuid>.jsonl` under the config directory.

Knows which messages a session has had. Knows nothing of turns or lines of stdout.
"""

from __future__ import annotations

import errno
import json
import os
import re
from typing import Any

from .frames import TIMESTAMP, VERSION

Json = dict[str, Any]


class Transcript:
    """One session's file. Nothing is created before the first entry is written."""

    def __init__(self, config: str, session_id: str) -> None:
        self._session_id = session_id
        self._fd = -1
        self.lost = ""  # why entries were not saved, an errno's name
        projects = os.path.join(config, "projects")
        slug = re.sub(r"[^A-Za-z0-9]", "-", os.getcwd())
        self.path = os.path.join(projects, slug, f"{session_id}.jsonl")
        if not os.path.exists(self.path):
            self.path = self._elsewhere(projects) or self.path

    def _elsewhere(self, projects: str) -> str | None:
        slugs = os.listdir(projects) if os.path.isdir(projects) else []
        paths = (os.path.join(projects, slug, f"{self._session_id}.jsonl") for slug in slugs)
        return next((path for path in paths if os.path.exists(path)), None)

    def entries(self) -> list[Json]:
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as file:
            whole = file.read().rpartition(b"\n")[0]  # a killed process leaves half a line
        return [json.loads(line) for line in whole.splitlines()]

    def uuids(self) -> set[str]:
        return {entry["uuid"] for entry in self.entries() if entry["type"] == "user"}

    def prompts(self) -> list[str]:
        return [text(e["message"]["content"]) for e in self.entries() if e["type"] == "user"]

    def totals(self) -> dict[str, list[int]]:
        """Return the tokens by model that the last process left behind at a clean exit."""
        last = [entry["models"] for entry in self.entries() if entry["type"] == "totals"]
        return last[-1] if last else {}

    def save(self, kind: str, uuid: str, **fields: object) -> None:
        """Append an entry: "user" or "assistant" with its message, or "totals"."""
        if self.lost:
            return
        entry: Json = {"type": kind, "uuid": uuid, "sessionId": self._session_id, **fields}
        entry |= {"cwd": os.getcwd(), "version": VERSION, "timestamp": TIMESTAMP}
        data = json.dumps(entry).encode() + b"\n"
        try:
            if self._fd < 0:
                self._fd = self._open()
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.lost = errno.errorcode[error.errno or errno.EIO]

    def _open(self) -> int:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def text(content: object) -> str:
    """Return the text of a message: a string, or its text blocks, one below another."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(block["text"] for block in blocks if block.get("type") == "text")
