"""Request bodies: read within limits, decoded strictly, every fault named by a JSON pointer.

A body is at most 256 KiB and takes at most ten seconds, however it is sent (the server below sets no such
limits). msgspec refuses wrong types, fractions for integers and unknown fields; what it lets pass and we do
not is control characters in texts, which can only be written as escapes and are looked for when there are
any.
"""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from app.domain.errors import Fault, Refusal, Refused
from app.gateway.deadlines import Patience
from app.gateway.exchange import Call, Headers
from app.gateway.faults import control_faults, faults_of
from app.gateway.problems import ProblemError

T = TypeVar("T")

BODY_BYTES_MAX: Final = 256 * 1024
BODY_SECONDS_MAX: Final = 10.0
_SWALLOWED_BYTES_MAX: Final = 1024 * 1024
_SWALLOW_SECONDS_MAX: Final = 1.0

_patience: Final = Patience(BODY_SECONDS_MAX)
_CLOSE: Final[Headers] = ((b"connection", b"close"),)
_ESCAPES: Final = re.compile(rb"[\\\x7f]")
_JSON: Final = re.compile(r"application/json(?:\s*;\s*charset=\"?utf-8\"?)?\s*\Z", re.IGNORECASE)


class ClientGone(Exception):
    """The client went away while its body was read."""


async def read_body(call: Call) -> bytes:
    """The whole body. Raises ProblemError (too large, too slow) and ClientGone."""
    length = call.headers.get(b"content-length", b"")
    try:
        with _patience.hold():
            if length.isdigit() and int(length[:20]) > BODY_BYTES_MAX:
                raise await _too_large(call)
            return await _read(call)
    except TimeoutError:
        detail = f"The body did not arrive within {BODY_SECONDS_MAX:g} seconds."
        raise ProblemError("request-timeout", detail, headers=_CLOSE) from None


async def _read(call: Call) -> bytes:
    whole = b""
    while True:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        whole += part
        if len(whole) > BODY_BYTES_MAX:
            raise await _too_large(call)
        if not message.get("more_body", False):
            return whole


async def _too_large(call: Call) -> ProblemError:
    """The problem, once a bounded rest was swallowed: a client that is still sending would not hear it."""
    swallowed = 0
    try:
        async with asyncio.timeout(_SWALLOW_SECONDS_MAX):
            more = True
            while more and swallowed < _SWALLOWED_BYTES_MAX:
                message = await call.receive()
                swallowed += len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        pass
    detail = f"A body has at most {BODY_BYTES_MAX} bytes."
    return ProblemError("body-too-large", detail, headers=_CLOSE)


def check_is_json(call: Call) -> None:
    """Raises ProblemError unless the body is announced as JSON in UTF-8, not compressed."""
    if not _JSON.match(call.header(b"content-type") or ""):
        raise ProblemError("unsupported-media-type", "Send Content-Type: application/json.")
    if (call.header(b"content-encoding") or "identity").lower() != "identity":
        raise ProblemError("unsupported-media-type", "Send the body without Content-Encoding.")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type.

    Raises ProblemError where it is not JSON, and Refused (`invalid-request`) naming every wrong field.
    """
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(faults_of(_plain(body), decoder.type) or (Fault("", str(error)),)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None
    if _ESCAPES.search(body):
        faults = control_faults(_plain(body))
        if faults:
            raise _invalid(faults)
    return value


def in_utc(pointer: str, at: datetime | None) -> datetime | None:
    """A time as the database takes it: in UTC there is none before year 1 and after 9999. Raises Refused."""
    try:
        return None if at is None else at.astimezone(UTC)
    except OverflowError:
        raise _invalid((Fault(pointer, "It has to be a time from the years 1 to 9999 (UTC)."),)) from None


def _plain(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON says
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None


def _invalid(faults: tuple[Fault, ...]) -> Refused:
    where = faults[0].pointer or "the body"
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Refused(Refusal("invalid-request", f"{where}: {faults[0].detail}{more}", faults))


def _malformed(body: bytes, error: Exception) -> ProblemError:
    if not body.strip():
        detail = "The body is empty."
    elif isinstance(error, RecursionError):
        detail = "The body is nested too deeply."
    elif isinstance(error, UnicodeDecodeError):
        detail = "The body is not UTF-8."
    else:
        detail = f"The body is not JSON: {error}."
    return ProblemError("malformed-request", detail)
