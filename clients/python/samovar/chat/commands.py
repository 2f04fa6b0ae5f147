"""The meaning of a typed line: a message, or a command after a slash.

Knows the conversation, and nothing of how it is shown.
"""

from samovar.chat.conversation import Conversation, View
from samovar.errors import SamovarError
from samovar.reach import Place
from samovar.words import clean_line, said

COMMANDS = {
    "/help": "shows this list",
    "/sessions": "lists your sessions",
    "/new [NAME]": "begins a new session",
    "/session NAME": "goes to another session",
    "/quit": "ends the chat, as Ctrl-D does; the session stays",
}
KEYS = (
    "Ctrl-C interrupts a turn; Alt-Enter begins a new line",
    "a message that begins with / is typed with two of them",
)


class Commands:
    """Executor of typed lines."""

    def __init__(self, conversation: Conversation, view: View, place: Place) -> None:
        self._conversation = conversation
        self._view = view
        self._place = place

    def obey(self, line: str) -> bool:
        """Execute a line. Return False if it ends the chat."""
        line = line.strip()
        if line.startswith("/") and not line.startswith("//"):
            return self._command(*line.split())
        if line:
            self._conversation.send(line.removeprefix("/") if line.startswith("//") else line)
        return True

    def _command(self, name: str, *given: str) -> bool:
        try:
            match name, given:
                case "/quit", ():
                    return False
                case "/help", ():
                    self._help()
                case "/sessions", ():
                    self._conversation.list()
                case "/new", () | (_,):
                    self._conversation.new(*given)
                case "/session", (session,):
                    self._conversation.open(session)
                case _:
                    self._refuse(name)
        except SamovarError as error:
            self._view.tell(said(error, self._place))
        return True

    def _refuse(self, name: str) -> None:
        usage = next((known for known in COMMANDS if known.split()[0] == name), None)
        if usage is not None:
            self._view.tell(f"it is {usage}")
        else:
            self._view.tell(f"there is no command {clean_line(name)}: /help lists them")

    def _help(self) -> None:
        width = max(map(len, COMMANDS))
        for name, does in COMMANDS.items():
            self._view.tell(f"{name:{width}}  {does}")
        for line in KEYS:
            self._view.tell(line)
