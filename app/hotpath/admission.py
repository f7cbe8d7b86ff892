"""`Admission`: the first question about a request that changes something, in one round trip.

One script takes one request of the caller's limit, looks up the answer that its idempotency key was given,
and takes what it wants from the sold-out gate, in this order: a caller over its limit learns nothing else, a
repetition takes nothing. Where the server does not answer, this process limits by itself and nothing is known
about the rest. Nothing that is told here is the truth.

On a cluster the gate is in another place than the caller, so this will be two scripts side by side behind the
same call; that is why the keys are given one by one.

If the process dies between the script and its answer, one request of a limit and some pieces at the gate are
lost, until the limit refills and the gate is counted again.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from app.hotpath.admission_policy import Decision, Policy
from app.hotpath.buckets import Buckets
from app.hotpath.client import Client
from app.hotpath.connection import Part
from app.hotpath.errors import ErrorReply, HotpathError
from app.hotpath.scripts import Script

HASH_BYTES: Final = 32
"""Length of a body's hash. What is stored under an answer's key is the body's hash and then the answer."""

Keys: TypeAlias = tuple[str, str, str, str]
"""Of the limit, the answer, the gate's counts, and what passed while there were none."""

_ANSWERED: Final = 1
_REUSED: Final = 2


class Verdict:
    """What the first question was answered with.

    `is_known`: the gate knew every item; `is_open`: it knew none, because there are no counts. `is_counted`:
    what was wanted was taken from the gate, or remembered for the counts that are being made. `answer` is
    what is stored under the request's key; `is_reused`: the key belongs to another body. `sold_out` names the
    items that nothing is left of, `short` those that too few are left of; then nothing was taken. `error` is
    why nothing is known: NotSent means that nothing was taken, the others that nobody can say.
    """

    __slots__ = (
        "answer",
        "decision",
        "error",
        "is_counted",
        "is_known",
        "is_open",
        "is_reused",
        "short",
        "sold_out",
    )

    def __init__(
        self, decision: Decision, *, is_known: bool = False, is_counted: bool = False, is_reused: bool = False
    ) -> None:
        """`decision` is what the caller's limit says; where that is no, nothing else was asked."""
        self.decision = decision
        self.is_known = is_known
        self.is_counted = is_counted
        self.is_reused = is_reused
        self.is_open = False
        self.answer: bytes | None = None
        self.sold_out: tuple[str, ...] = ()
        self.short: tuple[str, ...] = ()
        self.error: HotpathError | None = None


class Admission:
    """Asks the first question."""

    def __init__(self, client: Client, buckets: Buckets) -> None:
        """Ask this server; while it is away, these buckets."""
        self._client = client
        self._buckets = buckets
        self._script = Script.load("admit")

    async def admit(
        self,
        caller: str,
        policy: Policy,
        keys: Keys,
        *,
        body_hash: bytes,
        items: Sequence[str],
        quantities: Sequence[int],
    ) -> Verdict:
        """Ask for one request that wants `quantities` of `items` (each named once); raises nothing."""
        assert len(body_hash) == HASH_BYTES, "the script takes the hash from the answer by its length"
        arguments: tuple[Part, ...] = (*policy.arguments, body_hash, *items, *quantities)
        try:
            try:
                reply = await self._client.execute("EVALSHA", self._script.sha, 4, *keys, *arguments)
            except ErrorReply as error:
                if error.code != "NOSCRIPT":
                    raise
                reply = await self._client.evaluate(self._script, keys, arguments)
        except HotpathError as error:
            verdict = Verdict(self._buckets.take(caller, policy))
            verdict.error = error
            return verdict
        if reply.__class__ is not int:
            return _told(policy, items, reply)
        if reply < 0:
            return Verdict(policy.refused(-reply))
        verdict = Verdict(policy.allowed(reply >> 2), is_known=reply & 1 == 1, is_counted=True)
        verdict.is_open = not reply & 2
        return verdict


def _told(policy: Policy, items: Sequence[str], reply: list[Any]) -> Verdict:
    """The verdict of a reply that says more than yes or no."""
    what, left, *more = reply
    verdict = Verdict(policy.allowed(left), is_reused=what == _REUSED)
    if what == _ANSWERED:
        verdict.answer = more[0]
    elif what != _REUSED:
        verdict.is_known = True
        verdict.sold_out = tuple(items[number - 1] for number in more if number > 0)
        verdict.short = tuple(items[-number - 1] for number in more if number < 0)
    return verdict
