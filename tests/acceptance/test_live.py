"""Whoever follows events misses none, whatever dies: gateway, Redis and consumer killed in the middle."""

import asyncio
from urllib.parse import urlsplit

from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack
from tests.integration.gateway.live import opened

ORDERS = 10
FOLLOWERS_OF_EACH = 3


class Follower:
    """Follows a path as a browser does: comes again with the last id, until it is told to stop (204)."""

    def __init__(self, shop: Shop, path: str, order_id: str = ""):
        self.port = urlsplit(shop.url).port or 0
        self.key = shop.status["api_key"]
        self.path = path
        self.order_id = order_id
        self.ids: list[str] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        last_id = ""
        while True:
            try:
                stream = await opened(self.port, self.path, last_id=last_id, key=self.key)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)
                continue
            if stream.status == 204:
                return
            while stream.status == 200 and (event := await stream.event(60)) is not None:
                self.ids.append(event["id"])
            last_id = stream.last_id or last_id
            await stream.close()
            await asyncio.sleep(0.05)


async def test_followers_see_every_event_across_kills(stack: Stack, shop: Shop) -> None:
    """Those of an order: each once and in order, to its end. Those of everything: each at least once."""
    await shop.stock("followed", 100)
    tail = Follower(shop, "/v1/events")
    followers: list[Follower] = []
    try:
        async with asyncio.timeout(90):
            while 'holdfast_live_listeners{of="all"} 1.0' not in (await shop.http.get("/metrics")).text:
                await asyncio.sleep(0.02)
            for number in range(ORDERS):
                answer = await shop.place(f"{shop.customer}-{number}", "followed")
                order_id = answer.json()["id"]
                path = f"/v1/orders/{order_id}/events"
                followers += [Follower(shop, path, order_id) for _ in range(FOLLOWERS_OF_EACH)]
                if number == ORDERS // 2:
                    await stack.kill("gateway", "redis", "consumer")
            await asyncio.gather(*(follower.task for follower in followers))
            orders = await shop.settled()
            for follower in followers:
                version = orders[follower.order_id]["version"]
                assert follower.ids == [f"{follower.order_id}:{n}" for n in range(1, version + 1)]
            wanted = {identity for follower in followers for identity in follower.ids}
            while not wanted <= set(tail.ids):
                await asyncio.sleep(0.05)
    finally:
        tasks = [follower.task for follower in (tail, *followers)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await stack.until_ready()
