"""Query parameters of lists: limits, cursors, times.

Unknown names are refused: a misspelt filter would silently give everything.
"""

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from app.gateway.exchange import Call
from app.gateway.problems import ProblemError, wrong_parameter

LIMIT_MAX: Final = 200
LIMIT_DIGITS: Final = 3
LIMIT_DEFAULT: Final = 50

_CURSOR_CHARACTERS_MAX: Final = 200
_UNESCAPED_PLUS: Final = re.compile(r" (?=\d\d:\d\d\Z)")
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


def query(call: Call, *names: str) -> dict[str, str]:
    """The query, which may hold `names` only, each once. Raises ProblemError."""
    try:
        pairs = call.query_pairs()
    except ValueError:
        raise ProblemError("malformed-request", "The query cannot be decoded.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            known = ", ".join(names)
            raise wrong_parameter(name[:100], f"There is no such parameter; there are {known}.")
        if name in found:
            raise wrong_parameter(name, "It may be given once.")
        found[name] = value
    return found


def limit_of(given: dict[str, str]) -> int:
    """How many items one page holds."""
    text = given.get("limit", str(LIMIT_DEFAULT))
    is_number = text.isascii() and text.isdigit() and len(text) <= LIMIT_DIGITS
    if not is_number or not 1 <= int(text) <= LIMIT_MAX:
        raise wrong_parameter("limit", f"It has to be a whole number from 1 to {LIMIT_MAX}.")
    return int(text)


def encode_cursor(kind: str, last: str) -> str:
    """A cursor after the item `last` of a list of `kind`; opaque to callers."""
    return base64.urlsafe_b64encode(f"{kind}:{last}".encode()).decode().rstrip("=")


def cursor_of(given: dict[str, str], kind: str, is_valid: Callable[[str], object]) -> str | None:
    """What the cursor stands after; None without one. Raises ProblemError."""
    text = given.get("cursor")
    if text is None:
        return None
    try:
        padded = text[:_CURSOR_CHARACTERS_MAX].encode("ascii") + b"=" * (-len(text) % 4)
        found, _, last = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        found, last = "", ""
    if found != kind or not is_valid(last):
        raise wrong_parameter("cursor", "It is not one that this list gave out.")
    return last


def time_of(given: dict[str, str], name: str) -> datetime | None:
    """A time (RFC 3339, with its offset) in UTC. Raises ProblemError."""
    text = given.get(name)
    if text is None:
        return None
    try:
        return msgspec.convert(_UNESCAPED_PLUS.sub("+", text), _Time, strict=True).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        detail = "It has to be a time like 2026-01-31T12:00:00Z."
        raise wrong_parameter(name, detail) from None
