"""Every way in which the gateway says no: RFC 9457 problems, one table, one shape.

`ProblemError` carries a problem from wherever it is noticed to the one place that answers. What is not
foreseen becomes `internal-error`: logged with its stack here, told to nobody else.
"""

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec

from app.domain.errors import Fault, Refused, Unavailable
from app.gateway.exchange import Call, Headers, Reply
from app.gateway.problem_kinds import BY_SLUG, Kind
from app.observability.logging import logger

MEDIA: Final = b"application/problem+json"
INSTANCE_CHARACTERS_MAX: Final = 500

log = logger("gateway")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong (RFC 9457). `errors` names each wrong field by a JSON pointer into the request."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    correlation_id: str
    errors: tuple[Fault, ...] = ()


_BY_STATUS: Final = {404: "not-found", 405: "method-not-allowed"}
_encoder: Final = msgspec.json.Encoder()


class ProblemError(Exception):
    """Carries a problem up to where it is answered."""

    def __init__(self, slug: str, detail: str, faults: tuple[Fault, ...] = (), headers: Headers = ()) -> None:
        """Name the problem's type, and say what is wrong with this very request."""
        super().__init__(detail)
        self.kind = BY_SLUG[slug]
        self.detail = detail
        self.faults = faults
        self.headers = headers


def not_found(what: str) -> ProblemError:
    """The problem of asking for what is not there."""
    return ProblemError("not-found", f"There is no {what}.")


def wrong_parameter(name: str, detail: str) -> ProblemError:
    """The problem of a query parameter."""
    return ProblemError("invalid-parameter", f"{name}: {detail}", (Fault(f"/{name}", detail),))


def answer(call: Call, error: Exception) -> Reply:
    """The answer to a request that ended with `error`, whatever it is."""
    if isinstance(error, ProblemError):
        return reply(call, error.kind, error.detail, error.faults, error.headers)
    if isinstance(error, Refused):
        refusal = error.refusal
        kind = BY_SLUG.get(refusal.code, BY_SLUG["not-now"])
        return reply(call, kind, refusal.detail, refusal.faults)
    if isinstance(error, Unavailable):
        log.warning("service_unavailable", service=error.service, detail=str(error))
        detail = "The database does not answer." if error.service == "postgres" else "A service is missing."
        return reply(call, BY_SLUG["unavailable"], detail, headers=((b"retry-after", b"2"),))
    log.error("request_failed", exc_info=error)
    return reply(call, BY_SLUG["internal-error"], "It is on record under the correlation id.")


def of_status(call: Call, status: int, headers: Headers) -> Reply:
    """The problem that stands for a bare HTTP status (from the router)."""
    slug = _BY_STATUS.get(status)
    if slug is None:
        slug = "malformed-request" if 400 <= status < 500 else "internal-error"
    detail = {404: "There is no such path.", 405: f"{call.method} cannot be done here."}.get(status)
    return reply(call, BY_SLUG[slug], detail or HTTPStatus(status).phrase, headers=headers)


def reply(
    call: Call, kind: Kind, detail: str, faults: tuple[Fault, ...] = (), headers: Headers = ()
) -> Reply:
    """A problem as it is sent."""
    instance = quote(call.path[:INSTANCE_CHARACTERS_MAX], safe="/:@!$&'()*+,;=~-._")
    problem = Problem(
        f"/problems/{kind.slug}", kind.title, kind.status, detail, instance, call.correlation_id, faults
    )
    return Reply(kind.status, _encoder.encode(problem), headers, MEDIA)
