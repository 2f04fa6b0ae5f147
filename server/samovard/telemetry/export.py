"""Export while the service runs; the SDK is imported only if something is exported.

Independent of settings.
"""

import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import structlog

from samovard.telemetry.destination import CannotExport, Export
from samovard.telemetry.recorder import NULL_RECORDER, Recorder

_log = structlog.get_logger("samovard.telemetry")


@asynccontextmanager
async def exporting(export: Export) -> AsyncIterator[Recorder]:
    """Yield the recorder; on exit wait up to `export.flush` seconds for the last export.

    Raise `CannotExport` if a setting or a variable of the SDK cannot be used.
    """
    if not export.endpoint and not export.prometheus:
        yield NULL_RECORDER
        return
    with _sdk_warnings() as warnings:
        async with _providers(export, warnings) as recorder:
            yield recorder


def _providers(export: Export, warnings: "_Warnings") -> AbstractAsyncContextManager[Recorder]:
    try:
        # The SDK reads variables while it is imported, too.
        from samovard.telemetry.providers import Providers

        return Providers(export)
    except CannotExport:
        raise
    except Exception as error:
        raise CannotExport(
            f"telemetry cannot be set up: {_suspects(error, warnings.last)}"
        ) from error


@contextmanager
def _sdk_warnings() -> Iterator["_Warnings"]:
    """Log warnings of the SDK as lines of our own; by itself it prints tracebacks."""
    logger, handler = logging.getLogger("opentelemetry"), _Warnings()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


class _Warnings(logging.Handler):
    """Log the format string of a message, since its arguments may be values of variables.

    `last` is the latest message with its arguments.
    """

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of the SDK."""
        if record.levelno >= logging.WARNING:
            self.last = record.getMessage()
            _log.warning("telemetry.sdk", logger=record.name, message=str(record.msg))


def _suspects(error: Exception, warning: str) -> str:
    """Return the names of the variables of the SDK to check, and the type of the error.

    These are the variables that the error quotes, else those that the warning before it quotes,
    else all that are set. Their values, which may be secrets, and the texts, which may hold them,
    are left out.
    """
    given = {n: value for n, value in os.environ.items() if n.startswith("OTEL_") and value}
    texts = (str(error), warning)
    quoted = next((found for text in texts if (found := _quoted(given, text.lower()))), given)
    names = ", ".join(sorted(quoted)) or "no OTEL_ variable is set"
    return f"{names} ({type(error).__name__})"


def _quoted(given: Mapping[str, str], text: str) -> list[str]:
    # The SDK quotes some values in another case, and some names without their common prefix.
    short = {name: name.lower().removeprefix("otel_python_") for name in given}
    return [name for name, value in given.items() if short[name] in text or value.lower() in text]
