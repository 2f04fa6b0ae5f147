"""Log lines: JSON for machines, colour on a terminal.

Knows nothing of what is logged. Lines never hold prompts, answers, credentials or paths
of a session; whoever calls sees to that.
"""

import logging
from typing import TextIO

import structlog


def configure(format: str, level: str, stream: TextIO, *, for_good: bool = False) -> None:
    """Sets up logging: `format` is `auto`, `json` or `console`; `auto` asks the stream.

    What is set up `for_good` cannot be set up otherwise later: a line that is left out then
    costs a tenth.
    """
    console = format == "console" or (format == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            # As text: a structured one would hold the values of every frame.
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("event"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=for_good,
    )
