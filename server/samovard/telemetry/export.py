"""Exports while the service runs; the SDK is imported only if anything is exported.

Knows nothing of settings.
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
    """Return what records; at the end it waits, not long, until all of it is exported.

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
    """Log what the SDK complains of in lines of our own; by itself it prints tracebacks."""
    logger, handler = logging.getLogger("opentelemetry"), _Warnings()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


class _Warnings(logging.Handler):
    """Passes on what a message says in general: its arguments may be values of variables.

    `last` is the whole of the latest.
    """

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of the SDK."""
        if record.levelno >= logging.WARNING:
            self.last = record.getMessage()
            _log.warning("telemetry.sdk", logger=record.name, message=str(record.msg))


def _suspects(error: Exception, warning: str) -> str:
    """Return which variables of the SDK to look at: those that the error quotes, else the warning
    before it, else all that are set.

    Their values, which may be secrets, and the texts, which may hold them, are left out.
    """
    given = {n: value for n, value in os.environ.items() if n.startswith("OTEL_") and value}
    texts = (str(error), warning)
    quoted = next((found for text in texts if (found := _quoted(given, text.lower()))), given)
    names = ", ".join(sorted(quoted)) or "no OTEL_ variable is set"
    return f"{names} ({type(error).__name__})"


def _quoted(given: Mapping[str, str], text: str) -> list[str]:
    # Some values are quoted in other letters, some names without what all of them begin with.
    short = {name: name.lower().removeprefix("otel_python_") for name in given}
    return [name for name, value in given.items() if short[name] in text or value.lower() in text]
