"""`Admissions`: whether a request may go on, asked before anything else is done for it.

Reads take from a budget that is leased to this process, so most of them ask nobody. An order asks Redis once
for everything: its caller's limit, the answer its key was given, and whether what it wants is sold out. Redis
away: this process limits by itself, and PostgreSQL is asked about the rest, as it is anyway before anything
counts. If the process dies here, nothing has happened that does not heal within a second.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from app.contracts import admission as keys
from app.gateway.exchange import Headers
from app.gateway.problems import ProblemError
from app.hotpath.admission import HASH_BYTES, Admission, Verdict
from app.hotpath.admission_policy import Decision, Policy
from app.hotpath.buckets import Buckets
from app.hotpath.budgets import Budgets
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, NotNow
from app.infra.postgres.api_keys import ApiKey
from app.infra.postgres.intake import Answer, Request
from app.infra.redis.gate import Gate

ANSWER_LIFETIME_MS: Final = 60_000
ANSWER_BYTES_MAX: Final = 16 * 1024
"""Larger answers are read from PostgreSQL."""
SHORT_PAUSE_S: Final = 0.5
"""How often an order for more pieces than the gate counts is let through, for PostgreSQL to decide."""
REFUSED_S: Final = 0.002
"""A caller beyond its limit is refused orders for so long without another question."""
CALLERS_MAX: Final = 10_000
SKUS_MAX: Final = 10_000

_STATUS: Final = re.compile(rb"20[0-3]\Z")
_LOCATION: Final = re.compile(rb"[\x20-\x7e]*\Z")
_READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))

Lines: TypeAlias = Sequence[tuple[str, int]]
"""SKUs with pieces."""


class Admitted:
    """What is known about an order before PostgreSQL was asked. `headers` belong on its answer.

    `replay` is the answer that was given to its key; `sold_out` the SKUs that nothing is left of.
    `gate_known`: every SKU was counted, so what is left of it need not be asked.
    """

    __slots__ = ("gate_known", "headers", "replay", "sold_out", "taken")

    def __init__(self, headers: Headers, *, gate_known: bool = False, taken: Lines = ()) -> None:
        """`taken` is what `give_back` gives back."""
        self.headers = headers
        self.gate_known = gate_known
        self.taken = taken
        self.replay: Answer | None = None
        self.sold_out: tuple[str, ...] = ()


class _Caller:
    """What is worked out once for every key."""

    __slots__ = ("answers", "limit_key", "rate", "read", "refusal", "refused_until", "write")

    def __init__(
        self, environment: str, identity: str, rate: int | None, read: Policy, write: Policy
    ) -> None:
        self.rate = rate
        self.read = read
        self.write = write
        self.limit_key = keys.limit(environment, identity, write.name)
        self.answers = keys.answers(environment, identity)
        self.refusal = write.refused(0)
        self.refused_until = 0.0


class Admissions:
    """Admits the requests of one process. Close it before its client and its gate."""

    def __init__(self, client: Client, gate: Gate, environment: str, rate_limit_per_s: int) -> None:
        """Ask this server; keys without a limit of their own have `rate_limit_per_s`."""
        self._client = client
        self._gate = gate
        self._environment = environment
        self._rate_limit_per_s = rate_limit_per_s
        self._counts = keys.gate(environment, "counts")
        self._passed = keys.gate(environment, "passed")
        self._time = asyncio.get_running_loop().time
        buckets = Buckets()
        self._admission = Admission(client, buckets)
        self._reads = Budgets(client, buckets, lambda caller: keys.limit(environment, caller, "read"))
        self._writes = Budgets(client, buckets, lambda caller: keys.limit(environment, caller, "write"))
        self._callers: dict[str, _Caller] = {}
        self._policies: dict[int, tuple[Policy, Policy]] = {}
        self._short_until: dict[str, float] = {}

    def try_read(self, caller: ApiKey) -> Headers | None:
        """Admit a request that reads, at once; None where `read` has to be awaited. Raises ProblemError."""
        policy = self._caller(caller).read
        decision = self._reads.try_take(caller.id, policy)
        return None if decision is None else _headers(policy, decision)

    async def read(self, caller: ApiKey) -> Headers:
        """Admit a request that reads; the headers of its answer. Raises ProblemError (429)."""
        policy = self._caller(caller).read
        return _headers(policy, await self._reads.take(caller.id, policy))

    def read_not(self, caller: ApiKey) -> None:
        """A request that was just admitted to read is about to ask once more: it is one all the same."""
        self._reads.give_back(caller.id, self._caller(caller).read)

    async def other(self, caller: ApiKey, method: str) -> Headers:
        """Admit whatever has no question of its own, by its method. Raises ProblemError (429)."""
        if method in _READS:
            return self.try_read(caller) or await self.read(caller)
        policy = self._caller(caller).write
        return _headers(policy, await self._writes.take(caller.id, policy))

    def check_order(self, caller: ApiKey) -> None:
        """Refuse an order unread, where its caller was told a moment ago that it is over its limit.

        Raises ProblemError (429).
        """
        known = self._callers.get(caller.id)
        if known is not None and self._time() < known.refused_until:
            _headers(known.write, known.refusal)

    async def order(self, caller: ApiKey, request: Request, lines: Lines) -> Admitted:
        """Admit an order, in one round trip.

        Raises ProblemError (429). A key that seems to belong to another body is for PostgreSQL to refuse.
        """
        known = self._caller(caller)
        wanted = _wanted(lines)
        answer_key = known.answers + keys.answer_digest(request.route, request.key)
        verdict = await self._admission.admit(
            caller.id,
            known.write,
            (known.limit_key, answer_key, self._counts, self._passed),
            body_hash=request.body_hash,
            items=tuple(wanted),
            quantities=tuple(wanted.values()),
        )
        if not verdict.decision.is_allowed:
            known.refusal, known.refused_until = verdict.decision, self._time() + REFUSED_S
        headers = _headers(known.write, verdict.decision)
        if verdict.is_known and verdict.is_counted:  # nearly always
            return Admitted(headers, gate_known=True, taken=tuple(wanted.items()))
        return self._judged(verdict, headers, wanted, (known.limit_key, answer_key))

    def _judged(
        self, verdict: Verdict, headers: Headers, wanted: dict[str, int], own_keys: tuple[str, ...]
    ) -> Admitted:
        """What becomes of a verdict that is not simply yes."""
        admitted = Admitted(headers, taken=tuple(wanted.items()) if verdict.is_counted else ())
        if verdict.answer is not None or verdict.is_reused:
            admitted.replay = _decoded(verdict.answer or b"")
            if admitted.replay is None:  # the first one is under way, or was refused; this is not counted
                self._gate.unknown(wanted)
        elif verdict.error is not None:
            self._gate.look_again(wanted)
            if isinstance(verdict.error, ErrorReply) and not isinstance(verdict.error, NotNow):
                # Somebody has written something else there. All of it can be made anew.
                self._send("UNLINK", *own_keys)
                self._gate.broken()
        elif verdict.is_open:
            self._gate.missing()
        elif verdict.sold_out or verdict.short:
            self._gate.look_again(wanted)
            admitted.sold_out = verdict.sold_out or self._refused_short(verdict.short)
        else:
            self._gate.unknown(wanted)
        return admitted

    def look_again(self, admitted: Admitted) -> None:
        """Nobody knows what became of an admitted order: PostgreSQL will say what is left."""
        self._gate.look_again(sku for sku, _ in admitted.taken)

    def give_back(self, admitted: Admitted) -> None:
        """An admitted order was refused after all, or was a repetition: what it took is for others."""
        if admitted.taken:
            self._gate.give_back(admitted.taken)

    def remember(self, request: Request, answer: Answer) -> None:
        """Have a committed answer at hand for the next minute. Costs the caller next to nothing."""
        if len(answer.body) > ANSWER_BYTES_MAX:
            return
        caller = self._callers.get(request.caller)
        prefix = caller.answers if caller else keys.answers(self._environment, request.caller)
        key = prefix + keys.answer_digest(request.route, request.key)
        self._send("SET", key, _encoded(request.body_hash, answer), "PX", ANSWER_LIFETIME_MS)

    async def close(self) -> None:
        """Wait for what was asked; each question has its deadline."""
        await self._reads.close()
        await self._writes.close()

    def _refused_short(self, skus: tuple[str, ...]) -> tuple[str, ...]:
        """Which of these, of which there are some but too few, to refuse: none, once in a while.

        The count may be wrong, and what is missing may come from where PostgreSQL knows; but a crowd that
        wants more than the few pieces left must not be accepted all at once.
        """
        now = self._time()
        refused = tuple(sku for sku in skus if self._short_until.get(sku, 0.0) > now)
        if not refused:
            if len(self._short_until) >= SKUS_MAX:
                self._short_until.clear()
            self._short_until.update(dict.fromkeys(skus, now + SHORT_PAUSE_S))
        return refused

    def _caller(self, caller: ApiKey) -> _Caller:
        known = self._callers.get(caller.id)
        if known is None or known.rate != caller.rate_limit_per_s:
            while len(self._callers) >= CALLERS_MAX:
                del self._callers[next(iter(self._callers))]
            read, write = self._policies_of(caller.rate_limit_per_s or self._rate_limit_per_s)
            known = self._callers[caller.id] = _Caller(
                self._environment, caller.id, caller.rate_limit_per_s, read, write
            )
        return known

    def _policies_of(self, rate: int) -> tuple[Policy, Policy]:
        if rate not in self._policies:
            self._policies[rate] = (Policy("read", rate), Policy("write", rate))
        return self._policies[rate]

    def _send(self, *parts: str | bytes | int) -> None:
        """Send a command whose outcome is nobody's business."""
        self._client.execute(*parts).add_done_callback(_look)


def _headers(policy: Policy, decision: Decision) -> Headers:
    """The headers of an answer that may be given. Raises ProblemError."""
    if decision.is_allowed:
        return decision.headers
    detail = f"This key may {policy.name} {policy.limit} times a second."
    raise ProblemError("rate-limited", detail, headers=decision.headers)


def _wanted(lines: Lines) -> dict[str, int]:
    """SKU → pieces; lines of the same SKU are one."""
    wanted = dict(lines)
    if len(wanted) != len(lines):
        wanted = dict.fromkeys(wanted, 0)
        for sku, quantity in lines:
            wanted[sku] += quantity
    return wanted


def _encoded(body_hash: bytes, answer: Answer) -> bytes:
    """An answer as the script and `_decoded` want it."""
    assert len(body_hash) == HASH_BYTES, "the script takes the hash from the answer by its length"
    return b"%s%d %s\n%s" % (body_hash, answer.status, (answer.location or "").encode(), answer.body)


def _decoded(stored: bytes) -> Answer | None:
    """A stored answer; None where it is none. Redis is not believed: anybody may have written there."""
    head, _, body = stored.partition(b"\n")
    status, _, location = head.partition(b" ")
    if not (_STATUS.match(status) and _LOCATION.match(location) and body):
        return None
    return Answer(int(status), location.decode() or None, body, replayed=True)


def _look(future: "asyncio.Future[Any]") -> None:
    """Look at an outcome nobody waits for, so that it is not reported as never looked at."""
    if not future.cancelled():
        future.exception()
