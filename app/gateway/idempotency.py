"""`Idempotency-Key`: what identifies a request that must not be done twice, and the answer given again."""

import hashlib
import re
from typing import Final

from app.domain.errors import Fault
from app.gateway.exchange import Call, Reply
from app.gateway.problems import ProblemError
from app.infra.postgres.api_keys import ApiKey
from app.infra.postgres.intake import Answer, Request

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}\Z")


def key_of(call: Call) -> str:
    """The request's key. Raises ProblemError where it is missing or not 1 to 255 printable characters."""
    given = call.header(b"idempotency-key")
    if given is None or not given.strip():
        detail = "This request needs an Idempotency-Key header."
        raise ProblemError("idempotency-key-missing", detail)
    if not _KEY.match(given):
        detail = "Idempotency-Key has to be 1 to 255 printable ASCII characters."
        raise ProblemError("invalid-parameter", detail, (Fault("/Idempotency-Key", detail),))
    return given


def request_of(caller: ApiKey, route: str, key: str, body: bytes) -> Request:
    """What the answer is stored under: the caller's key, `route` (method and path), and what was sent."""
    return Request(caller.id, route, key, hashlib.sha256(body).digest())


def reply_of(answer: Answer) -> Reply:
    """An answer as it is sent, the first time or again."""
    headers = [(b"location", answer.location.encode())] if answer.location else []
    if answer.replayed:
        headers.append((b"idempotent-replayed", b"true"))
    return Reply(answer.status, answer.body, tuple(headers))
