"""What callers send to decide about many dead letters at once, and what they are answered."""

from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from app.domain.errors import Fault, Refusal, Refused
from app.gateway.bodies import in_utc
from app.infra.postgres.dead_letters import DECIDED_MAX, Chosen

_NAME: Final = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

LetterId: TypeAlias = Annotated[str, Meta(pattern="^[1-9][0-9]{0,17}$", examples=["17"])]
Time: TypeAlias = Annotated[datetime, Meta(tz=True)]


class LettersBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which letters, of those that wait: all that is said has to be true of a letter. `all`: every one.

    `subject` is an order's id or a SKU, or how one begins. `cursor` goes on behind an answer before.
    """

    ids: Annotated[list[LetterId], Meta(min_length=1, max_length=DECIDED_MAX)] | None = None
    group: Annotated[str, Meta(pattern=_NAME, examples=["projections"])] | None = None
    type: Annotated[str, Meta(min_length=1, max_length=100, examples=["order.confirmed.v1"])] | None = None
    subject: Annotated[str, Meta(min_length=1, max_length=64, examples=["ord_06dz"])] | None = None
    kind: Literal["failed", "unknown"] | None = None
    first_after: Time | None = None
    first_before: Time | None = None
    all: Literal[True] | None = None
    cursor: Annotated[str, Meta(min_length=1, max_length=200)] | None = None

    def chosen(self) -> Chosen:
        """Which letters. Raises Refused where nothing is said (never every one by mistake), and odd times."""
        chosen = Chosen(
            ids=None if self.ids is None else tuple(int(one) for one in self.ids),
            group=self.group,
            type=self.type,
            subject=self.subject,
            kind=self.kind,
            since=in_utc("/first_after", self.first_after),
            until=in_utc("/first_before", self.first_before),
        )
        if chosen == Chosen() and not self.all:
            detail = 'Say which letters are meant, or {"all": true}.'
            raise Refused(Refusal("invalid-request", detail, (Fault("", detail),)))
        return chosen


class DecidedDocument(msgspec.Struct, frozen=True):
    """How many letters were meant, and which; with a `next_cursor` there are more."""

    count: int
    ids: list[str]
    next_cursor: str | None
