"""Customers who do not come again: whatever is not a good answer at the first attempt is a failed request.

Each has connections that are kept between its requests, as clients of APIs have, and thinks for a while
between them, so that connections are idle at any moment.
"""

import asyncio
import random
from contextlib import suppress

import httpx

from tests.acceptance.shop import Shop

THINK_MAX_S = 0.6
_PLACED_S = 300
_READS = 5


class Customers:
    """Orders and reads, by several at once, until they are told to stop; so many orders a second at most."""

    def __init__(self, shop: Shop, sku: str, *, clients: int, orders_per_s: float) -> None:
        self._shop = shop
        self._sku = sku
        self._orders_per_s = orders_per_s
        self._began = asyncio.get_running_loop().time()
        self._dice = random.Random(sku)
        self._ordered = 0
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._customer(number)) for number in range(clients)]
        self.requests = 0
        self.failures: list[str] = []

    async def _customer(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self._shop.status['api_key']}"}
        async with httpx.AsyncClient(base_url=self._shop.url, headers=headers, timeout=30) as http:
            while not self._stopping.is_set():
                passed_s = asyncio.get_running_loop().time() - self._began
                if self._ordered < self._orders_per_s * passed_s:
                    self._ordered += 1
                    await self._order(http, f"{self._sku}-{self._ordered}")
                else:
                    await self._read(http, f"/v1/inventory/{self._sku}")
                await self._think()

    async def _order(self, http: httpx.AsyncClient, key: str) -> None:
        answer = await self._ask(
            http.post("/v1/orders", json=self._shop.body(self._sku), headers={"Idempotency-Key": key})
        )
        if answer is None:
            return
        if answer.status_code != 202:
            self.failures.append(f"POST: {answer.status_code} {answer.text}")
            return
        said = answer.json()
        self._shop.placed[said["id"]] = said
        for _ in range(_READS):
            await self._think()
            await self._read(http, f"/v1/orders/{said['id']}")

    async def _read(self, http: httpx.AsyncClient, path: str) -> None:
        answer = await self._ask(http.get(path))
        if answer is not None and answer.status_code != 200:
            self.failures.append(f"GET: {answer.status_code} {answer.text}")

    async def _ask(self, asking: "asyncio.Future[httpx.Response] | object") -> httpx.Response | None:
        self.requests += 1
        try:
            return await asking  # type: ignore[misc, no-any-return]
        except httpx.HTTPError as error:
            passed_s = asyncio.get_running_loop().time() - self._began
            self.failures.append(f"after {passed_s:.1f} s: {error!r}")
            return None

    async def _think(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._dice.random() * THINK_MAX_S)

    async def until_placed(self, more: int) -> None:
        """Wait until so many more orders were taken."""
        wanted = len(self._shop.placed) + more
        async with asyncio.timeout(_PLACED_S):
            while len(self._shop.placed) < wanted and not self.failures:
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Let everybody finish what they do."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
