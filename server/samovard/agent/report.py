"""Convert the CLI's `result` to the report of a turn.

Knows what the CLI's words mean. Error texts are our own: the CLI's name the upstream host and
address the operator, in whose log they are.
"""

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from samovard.agent.codec import ascii_json
from samovard.agent.failure import SENTENCES, cause_of
from samovard.agent.frames import COUNTS, ModelUsage, Result, Tokens
from samovard.core.events import FailureCause, Outcome, TurnFinished, Usage

MAX_TEXT = 1 << 20
# A text of this many characters has at most `MAX_TEXT` bytes.
_SURELY_SHORT = MAX_TEXT // 4

RATE_LIMITED = 429  # the status
_LIMITS = ("max_turns", "budget_exhausted")


def cut(text: str) -> tuple[str, int]:
    """Return at most 1 MiB of a text, cut between characters, and the number of bytes left out."""
    if len(text) <= _SURELY_SHORT:
        return text, 0
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_TEXT:
        return text, 0
    kept = data[:MAX_TEXT].decode("utf-8", "ignore")
    return kept, len(data) - len(kept.encode())


def pieces(text: str) -> list[str]:
    """Split a text into pieces of at most 1 MiB; an empty text has none."""
    if len(text) <= _SURELY_SHORT:
        return [text] if text else []
    return [text[i : i + _SURELY_SHORT] for i in range(0, len(text), _SURELY_SHORT)]


def finished(
    result: Result,
    before: Mapping[str, ModelUsage],
    steps: int = 0,
    resets: float | None = None,
    *,
    word: str = "",
    structured: bool = False,
) -> TurnFinished:
    """Return the report of a turn; `before` is what each model had used before it.

    `steps` are those of its main agent: the CLI's own `num_turns` counts messages to the model
    instead, one for each tool (measured on 2.1.330). `resets` is the number of seconds until the
    API takes requests again, if known; `word` the CLI's word for a failed API call. With
    `structured` the result is the JSON that was asked for, and a turn without it has failed,
    whatever the CLI says.
    """
    outcome, said, cause = outcome_of(result), result.result, FailureCause.UNSPECIFIED
    if outcome is Outcome.FAILED:
        cause = cause_of(result, word)
    if structured and outcome is Outcome.COMPLETED:
        if isinstance(result.structured_output, UnsetType):
            outcome, cause = Outcome.FAILED, FailureCause.RESULT_INVALID
        else:
            said = ascii_json(result.structured_output)
    text, missing = cut(said) if outcome is Outcome.COMPLETED else ("", 0)
    by_model = usage_by_model(result, before)
    return TurnFinished(
        outcome,
        result=text,
        result_truncated_bytes=missing,
        stop_reason=cut(result.stop_reason or "")[0],
        errors=(SENTENCES[cause],) if outcome is Outcome.FAILED else (),
        upstream_status=result.api_error_status or 0,
        upstream_retry_delay=resets if result.api_error_status == RATE_LIMITED else None,
        usage=sum(by_model.values(), Usage()),
        usage_by_model=by_model,
        agent_steps=steps,
        failure_cause=cause,
    )


def outcome_of(result: Result) -> Outcome:
    """Return how a turn ended.

    Only `terminal_reason` is reliable: an interrupt arrives as an error, and a failed call of the
    API as a success.
    """
    reason = result.terminal_reason
    if reason in ("aborted_streaming", "aborted_tools"):
        return Outcome.INTERRUPTED
    if reason in _LIMITS:
        return Outcome.LIMIT_REACHED
    completed = reason in (None, "completed") and not result.is_error
    return Outcome.COMPLETED if completed else Outcome.FAILED


def usage_by_model(result: Result, before: Mapping[str, ModelUsage]) -> dict[str, Usage]:
    """Return the usage of the turn, by model. The CLI's own totals cover the life of a process."""
    if result.since_last is not None:
        return {model: _usage(used) for model, used in result.since_last.items()}
    nothing = ModelUsage()
    return {
        model: _difference(used, before.get(model, nothing))
        for model, used in result.model_usage.items()
    }


def tokens(counts: Tokens | None) -> Usage:
    """Return token counts as usage; what a line leaves out counts as zero."""
    if counts is None:
        return Usage()
    return Usage(*(getattr(counts, name) or 0 for name in COUNTS))


def merged(start: Tokens | None, end: Tokens | None) -> Usage:
    """Return a message's usage: that of its end, or of its start where the end has no value."""
    first, last = start or Tokens(), end or Tokens()
    counts = (getattr(first if getattr(last, name) is UNSET else last, name) for name in COUNTS)
    return Usage(*(0 if count is UNSET else count or 0 for count in counts))


def _usage(used: ModelUsage) -> Usage:
    return Usage(*(getattr(used, name) for name in (*COUNTS, "cost_usd")))


def _difference(used: ModelUsage, before: ModelUsage) -> Usage:
    return Usage(
        *(max(getattr(used, name) - getattr(before, name), 0) for name in (*COUNTS, "cost_usd"))
    )
