"""The marker in Redis: a key of ours like all others, in the database that REDIS_URL chooses.

Guarantees that no key of ours is written beside those of another environment: every new connection is asked
first, by one script. Where our marker is missing, it looks whether any key is another environment's; if none
is, it writes the marker in the same step, for whoever knows PostgreSQL's. So a flushed Redis is marked again,
and of two environments that find it empty one has it. If the process dies here, it is written or it is not.
"""

import asyncio
import re
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from app.contracts.streams import environment_marker, prefix
from app.domain.errors import Unavailable
from app.hotpath.client import Client
from app.hotpath.dialing import Ask, Examine
from app.hotpath.errors import ErrorReply, HotpathError, NotNow, error_reply
from app.hotpath.scripts import Script
from app.infra.markers import KEEP_INTERVAL_S, Markers
from app.infra.redis.scripts import source

SERVICE: Final = "redis"
PAGE_KEYS: Final = 1_000
"""How many keys one SCAN looks at."""
PAGES_MAX: Final = 10
"""After so many the script looks no further: 10,000 keys are about 10 ms in which nobody else is served."""

_SETTING: Final = "REDIS_URL"
_TOO_MUCH: Final = "it has no marker and too many keys to see whose it is: SET {marker} {own}, if it is ours"
_NO_TEXT: Final = (
    "what it has at {marker} is no marker, so nobody knows whose it is: DEL {marker}, if it is ours"
)
_MEND: Final = "DEL {marker}"
"""Other keys are looked at then, and it is written again."""
_MAY_NOT: Final = (
    "its user may not look after the marker: grant it +eval +evalsha +get +set +scan ~{before}* &{before}* "
    "(the server says: {refusal})"
)
_FORBIDS: Final = ("NOPERM", "ACL failure in script", "The user executing the script can't")
"""How a server says it: to a command, and in a script those of Valkey and of Redis."""
_WHERE: Final = re.compile(r" script: (\S+, )?on @\S+\Z")
"""Where in the script it was, which helps nobody."""
_WHOSE: Final = Script.of(source("whose"))


def examiner(markers: Markers, pages_max: int = PAGES_MAX, pause_s: float = KEEP_INTERVAL_S) -> Examine:
    """What asks each new connection. It raises Unavailable where the connection may not be used.

    A database that is too large to say whose it is is asked again after `pause_s` seconds, not sooner.
    """
    own = markers.environment
    not_before = 0.0

    async def examine(ask: Ask) -> None:
        nonlocal not_before
        if monotonic() < not_before:
            raise Unavailable(SERVICE, _TOO_MUCH.format(marker=environment_marker(own), own=own))
        may_mark = markers.is_sure
        arguments = (own, prefix(own), int(may_mark), PAGE_KEYS, pages_max)
        try:
            found, answer = await _run(ask, environment_marker(own), *arguments)
        except ErrorReply as error:
            _explain(error, own)
            raise
        text = answer.decode("utf-8", "replace")
        if found == b"marker":
            mend = _MEND.format(marker=environment_marker(own))
            markers.compare(_SETTING, SERVICE, text, mend=mend)
        elif found == b"keys":
            markers.compare(_SETTING, SERVICE, text, "the one there holds keys of")
        elif found == b"much":
            not_before = monotonic() + pause_s
            raise Unavailable(SERVICE, _TOO_MUCH.format(marker=environment_marker(own), own=own))
        elif may_mark:
            _bear(error_reply(text), own)
        else:
            raise Unavailable(SERVICE, "it has no marker, and PostgreSQL has not said yet that it is ours")

    return examine


def _bear(refusal: ErrorReply, own: str) -> None:
    """A full or read-only server takes no marker for now: it is nobody else's, so nobody is harmed.

    Raises Unavailable for what will not pass.
    """
    if isinstance(refusal, NotNow):
        return
    _explain(refusal, own)
    raise Unavailable(SERVICE, f"it takes no marker: {refusal}")


def _explain(refusal: ErrorReply, own: str) -> None:
    """Raise Unavailable with what somebody has to do about it, where that is known."""
    said = _WHERE.sub("", refusal.message)
    if refusal.code == "WRONGTYPE":
        raise Unavailable(SERVICE, _NO_TEXT.format(marker=environment_marker(own))) from refusal
    if any(forbids in said for forbids in _FORBIDS):
        raise Unavailable(SERVICE, _MAY_NOT.format(before=prefix(own), refusal=said)) from refusal


async def _run(ask: Ask, *parts: str | int) -> Any:  # noqa: ANN401 - what the script returns
    try:
        return await ask("EVALSHA", _WHOSE.sha, 1, *parts)
    except ErrorReply as error:
        if error.code != "NOSCRIPT":
            raise
    return await ask("EVAL", _WHOSE.source, 1, *parts)


async def keep(client: Client, markers: Markers, interval_s: float = KEEP_INTERVAL_S) -> None:
    """Look at the marker now and then, on a connection that stays: keys can be flushed or evicted."""
    examine = examiner(markers)
    while True:
        await asyncio.sleep(interval_s)
        with suppress(HotpathError, Unavailable):
            await examine(lambda *parts: client.execute(*parts, safe=True))
