"""`Buckets`: the limits of callers within this process, for as long as nobody else can be asked.

The same policy as with a server, but each process counts for itself: together, `n` of them let through up to
`n` times the limit. If the process dies here, every caller begins anew.
"""

from time import monotonic
from typing import Final

from app.hotpath.admission_policy import Decision, Policy

CALLERS_MAX: Final = 10_000


class Buckets:
    """GCRA by this process's clock. Nothing here waits."""

    def __init__(self) -> None:
        """Start with every caller's limit whole."""
        self._used_until_us: dict[tuple[str, str], float] = {}

    def take(self, caller: str, policy: Policy) -> Decision:
        """One request of the caller's limit, if one is left."""
        now = monotonic() * 1_000_000
        window = policy.window_s * 1_000_000
        used_until = min(max(self._used_until_us.get((caller, policy.name), now), now), now + window)
        used_until += policy.interval_us
        left = now + window - used_until + 0.5  # half a microsecond for what floats lose
        if left < 0:
            return policy.refused(-left)
        # Taken out and put back in, so that the first is always whoever came least lately.
        self._used_until_us.pop((caller, policy.name), None)
        if len(self._used_until_us) >= CALLERS_MAX:
            del self._used_until_us[next(iter(self._used_until_us))]
        self._used_until_us[caller, policy.name] = used_until
        return policy.allowed(int(left / policy.interval_us))
