"""Whatever happens in whatever order, every delivery comes to an end, and no endpoint has too many begun."""

import random
from collections import defaultdict
from typing import Any

from app.domain.webhooks import DeliveryState, Outcome, Post, Receipt
from app.infra.postgres.answers import Request
from app.infra.postgres.webhook_endpoints import Wanted
from app.infra.postgres.webhook_waiting import OF_ONE_MAX
from app.workers import policies
from tests.integration.webhooks.world import LEASE_S, World

URL = "https://hooks.example.com/"
STEPS = 400
WAITS_S = (5.0, 300.0, 1800.0)

CLOCKS = {
    "webhook_deliveries": ("next_at", "claimed_until", "created_at", "since"),
    "webhook_breakers": ("open_until", "probe_until", "next_slot"),
    "workflow_jobs": ("created_at",),
}
FORGOTTEN = """
SELECT id, round FROM webhook_deliveries d WHERE NOT waits AND state = 'pending'
    AND (id, round) NOT IN (SELECT * FROM unnest($1::text[], $2::int[]))
    AND NOT EXISTS (SELECT FROM workflow_jobs WHERE workflow_id LIKE '%' || d.id || '%')
"""
"""Whom neither the record, nor Temporal, nor a job carries."""
TAKEN = """
SELECT endpoint_id, count(*) AS n FROM webhook_deliveries
WHERE NOT waits AND state = 'pending' AND next_at <= now() AND claimed_until > now() - interval '5 minutes'
GROUP BY endpoint_id
"""


class Walk:
    """Rounds that are carried, receivers that answer or not, and everything that may happen between."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.endpoints: list[str] = []
        self.answers: dict[str, int | None] = {}
        """Endpoint → what it answers."""
        self.carried: dict[tuple[str, int], int] = {}
        """What Temporal carries: round → failures so far."""
        self.begun: set[tuple[str, int]] = set()
        """What it has ever been told of: no round begins twice."""
        self.lost: set[tuple[str, int]] = set()
        self.taken: list[tuple[str, int]] = []
        """What it has taken, and that is not on record yet."""
        self.got: defaultdict[str, int] = defaultdict(int)
        """Delivery → how often its receiver took it."""
        self.number = 0

    async def happen(self) -> None:
        """An order is placed."""
        await self.world.happen((await self.world.orders.accept()).id)

    def _carry(self, key: tuple[str, int], failures: int) -> None:
        if key not in self.begun:
            self.begun.add(key)
            self.carried[key] = failures

    async def claim(self, *, dies: bool = False) -> None:
        """A starter looks; where it dies, what it told Temporal is never put on record."""
        claimed = await self.world.waiting.claim(self.dice.randint(1, 30), LEASE_S)
        told = claimed[: self.dice.randint(0, len(claimed))] if dies else claimed
        for one in told:
            self._carry(one.id, one.failures)
        self.taken += [] if dies else [one.id for one in told]

    async def record(self) -> None:
        """It is put on record what Temporal has taken, which may have ended meanwhile."""
        if self.taken:
            await self.world.waiting.done(self.taken)
            self.taken.clear()

    async def jobs(self) -> None:
        """The teller takes what was sent by hand."""
        for row in await self.world.database.fetch("DELETE FROM workflow_jobs RETURNING workflow_id"):
            _, delivery_id, *later = row["workflow_id"].split("/")
            self._carry((delivery_id, int(later[0]) if later else 1), 0)

    async def attempt(self, *, dies: bool = False) -> None:
        """Some of those that are carried look; where the worker dies, what it sent is not put on record."""
        for key in self.dice.sample(sorted(self.carried), min(6, len(self.carried))):
            await self._attempt(*key, dies=dies)

    async def _attempt(self, delivery_id: str, round_: int, *, dies: bool) -> None:
        failures = self.carried[delivery_id, round_]
        begun = await self.world.deliveries.begin(delivery_id, round_, may_wait=True)
        if isinstance(begun, Post):
            status = self.answers[begun.endpoint_id]
            if status == 200:
                self.got[delivery_id] += 1
            if dies:
                return
            wait_s = WAITS_S[failures] if failures < len(WAITS_S) else None
            begun = await self.world.deliveries.end(begun, round_, Receipt(status, "no"), wait_s)
            self.carried[delivery_id, round_] += 1
        if begun.waits or begun.state is not DeliveryState.PENDING:
            del self.carried[delivery_id, round_]

    async def lose(self) -> None:
        """Temporal loses one."""
        if self.carried:
            key = self.dice.choice(sorted(self.carried))
            del self.carried[key]
            self.lost.add(key)

    async def again(self) -> None:
        """Somebody has one sent again."""
        row = self.dice.choice(await self.world.rows())
        if await self.world.database.fetch(
            "SELECT FROM webhook_endpoints WHERE id = $1 AND is_enabled", row["endpoint_id"]
        ):
            self.number += 1
            request = Request("test", "again", f"again-{self.number}", b"")
            await self.world.deliveries.again(request, row["endpoint_id"], row["id"], lambda _: b"{}")

    async def turn(self) -> None:
        """A receiver changes its mind, or its owner does."""
        name = self.dice.choice(self.endpoints)
        self.answers[name] = self.dice.choice([200, 200, 500, 500, None, 410])
        if self.dice.random() < 0.3:
            await self.world.endpoints.change(name, None, Wanted(is_enabled=self.dice.random() < 0.7))

    async def sweep(self) -> None:
        """What is done every few seconds."""
        await self.world.waiting.give_up(policies.WEBHOOK_ENDS_S, 5)
        await self.world.deliveries.revive()

    async def pass_time(self, seconds: float | None = None) -> None:
        """Let some pass: everything on record is put back."""
        some = self.dice.choice([1, 10, 60, 400, 4000]) if seconds is None else seconds
        for table, columns in CLOCKS.items():
            earlier = ", ".join(f"{column} = {column} - make_interval(secs => $1)" for column in columns)
            await self.world.database.execute(f"UPDATE {table} SET {earlier}", some)

    async def check(self) -> None:
        """Places are kept to (by hand, or from sleep, come more), and nobody is forgotten."""
        by_hand = self.number + len([failures for failures in self.carried.values() if failures])
        for row in await self.world.database.fetch(TAKEN):
            assert row["n"] <= OF_ONE_MAX + by_hand, row
        carried = list(zip(*self.carried, strict=True)) or [[], []]
        forgotten = {
            (row["id"], row["round"]) for row in await self.world.database.fetch(FORGOTTEN, *carried)
        }
        assert forgotten <= self.lost

    async def end(self) -> list[dict[str, Any]]:
        """Everybody is well from now on; what became of all deliveries."""
        for name in self.endpoints:
            self.answers[name] = 200
        for _ in range(300):
            rows = await self.world.rows()
            if all(row["state"] != "pending" for row in rows):
                return rows
            await self.pass_time(700)
            await self.jobs()
            await self.claim()
            await self.record()
            for key in sorted(self.carried):
                await self._attempt(*key, dies=False)
            await self.sweep()
        raise AssertionError([row for row in rows if row["state"] == "pending"])


async def test_every_delivery_comes_to_an_end(world: World, seed: int) -> None:
    """Delivered where its receiver took it; else failed, and the record says why."""
    walk = Walk(world, seed)
    for status in (200, 500, None, 410, 200):
        name, _ = await world.endpoint(URL)
        walk.endpoints.append(name)
        walk.answers[name] = status
    await walk.happen()
    doings = {
        walk.happen: 4, walk.claim: 8, walk.record: 8, walk.attempt: 12, walk.pass_time: 6, walk.turn: 2,
        walk.again: 2, walk.jobs: 3, walk.sweep: 2, walk.lose: 1,
    }  # fmt: skip
    for _ in range(STEPS):
        (doing,) = walk.dice.choices(list(doings), list(doings.values()))
        if doing in {walk.claim, walk.attempt}:
            await doing(dies=walk.dice.random() < 0.1)
        else:
            await doing()
        await walk.check()
    rows = await walk.end()
    delivered = {row["id"] for row in rows if row["state"] == "delivered"}
    assert len(rows) > 20
    assert delivered, "some arrive"
    assert delivered <= walk.got.keys(), "what is on record as delivered was taken"
    failed = [row for row in rows if row["state"] == "failed"]
    assert all(row["last_error"] for row in failed), "the log says why"
    assert not [row for row in rows if row["waits"] or row["next_at"]], "nothing is due any more"
    assert isinstance(await world.deliveries.begin(rows[0]["id"], rows[0]["round"], may_wait=True), Outcome)
