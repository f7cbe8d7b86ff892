"""`AccessLog`: one line a request, at the cost of a microsecond.

Lines are gathered and written together, at most `LATE_S` later, so they may stand behind younger lines of
other parts; their timestamps are right. If the process dies here, the last lines are lost and nothing else.
"""

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import msgspec

from app.observability import logging

LATE_S: Final = 0.05
GATHERED_BYTES_MAX: Final = 64 * 1024

_encoder: Final = msgspec.json.Encoder()


class AccessLog:
    """Lines about requests. In the `console` format they go the way of all lines."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        """Write as `logging.configure` was told, to `stream` (standard error)."""
        shape = logging.shape()
        self.is_verbose = shape.level == "debug"
        self._says_info = shape.level in {"debug", "info"}
        self._logger = logging.logger("access")
        self._is_json = shape.fmt == "json"
        self._common = {"mode": shape.mode, "environment": shape.environment, "component": "access"}
        self._stream = sys.stderr.buffer if stream is None else stream
        self._gathered: list[bytes] = []
        self._bytes = 0
        self._due: asyncio.TimerHandle | None = None

    def line(self, fields: dict[str, Any], *, debug: bool = False) -> None:
        """One line about a request that was answered; `debug` lines are written at that level only."""
        if debug and not self.is_verbose:
            return
        level = "debug" if debug else "info"
        if not self._is_json:
            getattr(self._logger, level)("request", **fields)
            return
        if not self._says_info:
            return
        at = datetime.now(UTC)
        whole = _encoder.encode(
            {"event": "request", "level": level, "timestamp": at, **self._common, **fields}
        )
        self._gathered.append(whole)
        self._bytes += len(whole)
        if self._bytes >= GATHERED_BYTES_MAX:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(LATE_S, self.flush)

    def flush(self) -> None:
        """Write what is gathered."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        gathered, self._gathered, self._bytes = self._gathered, [], 0
        if gathered:
            with suppress(OSError, ValueError):  # nobody reads it any more, or the disk is full
                self._stream.write(b"\n".join((*gathered, b"")))
                self._stream.flush()
