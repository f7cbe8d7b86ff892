"""Logs: one line an event, JSON in production, readable in development; each carries the correlation id.

`bind_correlation` puts the id in a context variable, so every line that a request, an activity or an event
handler causes carries it without being told. A stack is written without the values of its variables: they may
be personal or secret, and rendering them takes so long that whoever logs seems to hang.
"""

import logging
import sys
from collections.abc import MutableMapping
from time import monotonic
from typing import Any, Final, NamedTuple, TextIO

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer

SAID_EVERY_S: Final = 60.0
"""How often at most something is said that whoever likes can cause, as often as they like."""


class Shape(NamedTuple):
    """How lines look: the level from which they are written, `json` or `console`, and what all carry."""

    level: str = "info"
    fmt: str = "json"
    mode: str = ""
    environment: str = ""


_shape = Shape()


def shape() -> Shape:
    """What `configure` was told last."""
    return _shape


def configure(*, level: str, fmt: str, mode: str, environment: str) -> None:
    """Set up structlog and the standard library's logging alike. `fmt` is `json` or `console`."""
    global _shape  # noqa: PLW0603 - as global as the configuration of logging is
    _shape = Shape(level, fmt, mode, environment)
    number = getattr(logging, level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Any] = (
        [ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), structlog.processors.JSONRenderer()]
        if fmt == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = Unlocked(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_drop_meta, *last])
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    structlog.contextvars.bind_contextvars(mode=mode, environment=environment)


class Unlocked(logging.StreamHandler[TextIO]):
    """Writes a record as one line, in one write, without a lock.

    Temporal raises an exception into a workflow's thread that took too long, wherever it is: a lock whose
    holder is interrupted so would be held for ever, and everybody who logs would wait for it.
    """

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """Have none."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        try:
            self.stream.write(self.format(record) + self.terminator)
        except Exception:  # noqa: BLE001 - as the standard library does
            self.handleError(record)


def _drop_meta(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)


def bind_correlation(correlation_id: str, **more: str) -> None:
    """Let every line of this task (and of tasks it starts) carry the correlation id."""
    structlog.contextvars.bind_contextvars(correlation_id=correlation_id, **more)


def logger(name: str) -> Any:  # noqa: ANN401 - structlog's own type is a protocol of the configured class
    """A logger; `name` says which part of the program speaks."""
    return structlog.get_logger(component=name)


class Rarely:
    """Counts what may happen very often, for one line at once and then one in `every_s` seconds at most."""

    def __init__(self, every_s: float = SAID_EVERY_S) -> None:
        """Nothing has happened yet."""
        self._every_s = every_s
        self._count = 0
        self._say_from = 0.0

    def one_more(self) -> int:
        """Count one; how many there were since the last line where it is time for the next, else 0."""
        self._count += 1
        if monotonic() < self._say_from:
            return 0
        count, self._count, self._say_from = self._count, 0, monotonic() + self._every_s
        return count
