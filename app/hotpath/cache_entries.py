"""Values of the cache as they are stored: one line of text, then the value itself.

`<version> <change> <loaded> <fresh until> <gone at> <cost>`: times are microseconds of the server's clock,
the cost of the load are microseconds too. `lua/put.lua` reads the same line. Nothing here outlives a call.
"""

import math
import random
from typing import Final, NamedTuple, TypeAlias

JITTER: Final = 0.1
"""The share of a lifetime that is left to chance, so that what was written together does not end together."""

_HEADER_BYTES_MAX: Final = 127
"""As many as `lua/put.lua` reads. Its numbers are no larger than a float can be."""
_COSTS_MAX: Final = 20
"""Further from its end than so many times its cost a value is never due: one in 500 million would be."""
_MICROSECONDS: Final = 1_000_000


class Loaded(NamedTuple):
    """What a loader gives: a value, or None where there is none, and how long that is good for.

    Of two values the one with the higher `version` wins, of one version the one with the higher `change`.
    `lifetime_s` is how long after the load began it is fresh; for `stale_s` more it may stand in for a
    loader that is away. A value is never empty.
    """

    body: bytes | None
    lifetime_s: float
    stale_s: float = 0.0
    version: int = 0
    change: int = 0


class Entry(NamedTuple):
    """A value to be written: `as_of` is when its load began (monotonic), `cost_s` how long it took."""

    key: str
    loaded: Loaded
    as_of: float
    cost_s: float = 0.0


class Found(NamedTuple):
    """What Redis has. `is_fresh`: else it may only stand in; `is_due`: it had better be loaded again soon."""

    body: bytes | None
    is_fresh: bool
    is_due: bool


Arguments: TypeAlias = tuple[int, int, int, int, bytes]
"""What the script takes: version, change, loaded, gone at, and the value with its header."""


def stored_as(entry: Entry, *, loaded_at: int) -> Arguments:
    """An entry whose load began at `loaded_at` on the server's clock, as the script takes it."""
    body, lifetime_s, stale_s, version, change = entry.loaded
    assert body != b"", "an empty value cannot be told from none"
    lifetime_s *= 1.0 - JITTER * random.random()  # noqa: S311 - jitter
    fresh_until = loaded_at + int(lifetime_s * _MICROSECONDS)
    gone_at = fresh_until + int(stale_s * _MICROSECONDS)
    cost = int(entry.cost_s * _MICROSECONDS)
    header = b"%d %d %d %d %d %d\n" % (version, change, loaded_at, fresh_until, gone_at, cost)
    return version, change, loaded_at, gone_at, header + (body or b"")


def judge(stored: bytes, now: float, beta: float) -> Found | None:
    """What is stored, unless it may not be used any more at `now`, or is none of ours.

    XFetch: the dearer its load and the nearer its end, the likelier it is found due; `beta` scales that.
    """
    header, newline, body = stored.partition(b"\n")
    if len(header) > _HEADER_BYTES_MAX:
        return None
    try:
        _, _, loaded_at, fresh_until, gone_at, cost = map(int, header.split(b" "))
    except ValueError:
        return None
    if not newline or loaded_at > now or now >= gone_at:  # loaded in the future: the server's clock was set
        return None
    left = fresh_until - now
    ahead = cost * beta
    is_due = 0 < left < ahead * _COSTS_MAX and left <= -math.log(1.0 - random.random()) * ahead  # noqa: S311
    return Found(body or None, left > 0, is_due)
