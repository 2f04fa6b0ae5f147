"""Tell progress in a turn from mere signs of life, and count its steps.

Knows which frames of a turn show progress: text, thinking and tool input as they are produced,
finished blocks, tool calls and their results, and the end of a compaction. Knows nothing of time,
nor of events.
"""

from samovard.agent import frames as f
from samovard.core.process import Doing

SYNTHETIC = "<synthetic>"  # the CLI reports a failed API call as a message of this model


class ProgressTracker:
    """The activity of the agent in one turn.

    `progress` and `waits` are those since `since_last`.
    """

    def __init__(self) -> None:
        self.progress = False
        self.waits = 0.0  # seconds that the agent says it will wait before it goes on
        self.spent = False  # a step that costs something has ended
        self._calls: set[str] = set()  # ids of tool calls without a result yet
        self._compacting = False
        self.answers = 0  # answers of the model to the main agent, begun and not void
        self._answer = ""  # the newest of them
        self._returned = False  # every tool that it called has returned

    def __repr__(self) -> str:
        return (
            f"<ProgressTracker {self.doing.name} progress={self.progress} calls={len(self._calls)}>"
        )

    @property
    def doing(self) -> Doing:
        """The agent's current activity."""
        if self._compacting:
            return Doing.COMPACTING
        return Doing.TOOL if self._calls else Doing.MODEL

    @property
    def steps(self) -> int:
        """The number of steps that the main agent has begun: the next one begins once all tools
        returned.
        """
        return self.answers + self._returned

    def since_last(self) -> tuple[bool, float]:
        """Return whether there was progress since the last call, and the waits; then start anew."""
        told = self.progress, self.waits
        self.progress, self.waits = False, 0.0
        return told

    def take(self, frame: f.Frame) -> None:
        """Count a frame of the turn."""
        if type(frame) is f.StreamEvent:
            if frame.event.type == "content_block_delta":
                self.progress = True
            else:
                self._stream(frame)
        elif type(frame) is f.Assistant:
            self._finished(frame)
        elif type(frame) is f.User:
            self._results(frame)
        elif type(frame) is f.System:
            self._system(frame)

    def _stream(self, frame: f.StreamEvent) -> None:
        event, void = frame.event, frame.abandoned_blocks
        self.spent |= event.type == "message_delta"
        if event.type == "message_start" and event.message is not None:
            # The model is asked again once every result has arrived: calls without one were void.
            self._calls.clear()
            self._begin(event.message.id)
        elif event.type == "message_stop" and void is not None and void.from_block_index == 0:
            self.answers -= void.api_message_id == self._answer

    def _begin(self, answer: str) -> None:
        if answer != self._answer:
            self._answer = answer
            self._returned = False
            self.answers += 1

    def _finished(self, frame: f.Assistant) -> None:
        content = frame.message.content
        if frame.error or frame.message.model == SYNTHETIC or isinstance(content, str):
            return
        if not frame.parent_tool_use_id:
            self._begin(frame.message.id)
        self.progress = self.progress or bool(content)
        self.spent |= bool(frame.parent_tool_use_id)  # whose deltas never come
        self._calls.update(block.id for block in content if block.type == "tool_use")

    def _results(self, frame: f.User) -> None:
        content = frame.message.content
        for block in () if isinstance(content, str) else content:
            if block.type == "tool_result":
                self.progress = self.spent = True
                self._calls.discard(block.tool_use_id)
                self._returned = not (self._calls or frame.parent_tool_use_id)

    def _system(self, frame: f.System) -> None:
        if frame.subtype == "status":
            self._compacting = frame.status == "compacting"
        elif frame.subtype == "compact_boundary":
            self.progress = True
            self._compacting = False
        elif frame.subtype == "api_retry":
            self.waits += (frame.retry_delay_ms or 0.0) / 1000
