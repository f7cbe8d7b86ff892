"""`Policy`: how many requests a caller may make in a window, and the headers that say so.

The headers are those of the IETF draft (`RateLimit-Policy`, `RateLimit`, `Retry-After`), kept as finished
bytes. The limit is a GCRA: a caller may use the whole window at once, and then as fast as it refills.
"""

from math import ceil
from typing import Final, TypeAlias

CACHED_MAX: Final = 4_096
"""Decisions whose headers are kept, of one policy."""

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Decision:
    """Whether a request may pass, and what its answer says about the limit. Never changed once it is made."""

    __slots__ = ("headers", "is_allowed", "remaining", "retry_after_s")

    def __init__(self, headers: Headers, remaining: int, retry_after_s: int = 0) -> None:
        """`remaining` requests are left now; a refused one may come again after `retry_after_s` seconds."""
        self.headers = headers
        self.remaining = remaining
        self.retry_after_s = retry_after_s
        self.is_allowed = not retry_after_s


class Policy:
    """`limit` requests in each `window_s` seconds, for every caller by itself."""

    def __init__(self, name: str, limit: int, window_s: int = 1) -> None:
        """`name` is what the headers call it. At most a million requests a second."""
        if not 1 <= limit <= 1_000_000 * window_s:
            raise ValueError("a limit is 1 to 1,000,000 requests a second")
        self.name = name
        self.limit = limit
        self.window_s = window_s
        self.interval_us = window_s * 1_000_000 / limit
        self.arguments: Final = (repr(self.interval_us), window_s * 1_000_000)
        """As the scripts want it: interval and window, in microseconds."""
        self._says = (b"ratelimit-policy", b'"%s";q=%d;w=%d' % (name.encode(), limit, window_s))
        self._begins = b'"%s";r=' % name.encode()
        self._allowed: dict[int, Decision] = {}
        self._refused: dict[int, Decision] = {}

    def allowed(self, remaining: int) -> Decision:
        """A request passes and leaves `remaining`; costs one look into a dict where that was said before."""
        return self._allowed.get(remaining) or self._allow(remaining)

    def refused(self, wait_us: float) -> Decision:
        """A request is refused; the next one passes after `wait_us` microseconds."""
        wait_s = max(1, ceil(wait_us / 1_000_000))
        decision = self._refused.get(wait_s)
        if decision is None:
            headers = (*self._headers(0, wait_s), (b"retry-after", b"%d" % wait_s))
            decision = self._refused[wait_s] = Decision(headers, 0, wait_s)
        return decision

    def _allow(self, remaining: int) -> Decision:
        # The limit is whole again when what was used of it has come back.
        reset_s = max(1, ceil((self.limit - remaining) * self.window_s / self.limit))
        decision = Decision(self._headers(remaining, reset_s), remaining)
        if len(self._allowed) >= CACHED_MAX:
            self._allowed.clear()
        self._allowed[remaining] = decision
        return decision

    def _headers(self, remaining: int, reset_s: int) -> Headers:
        return (self._says, (b"ratelimit", b"%s%d;t=%d" % (self._begins, remaining, reset_s)))
