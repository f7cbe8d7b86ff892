"""More than there is room for: who is refused first, how, and what it leaves behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
from litestar import Litestar, get, post

from app.gateway.edge import Edge
from app.observability import metrics
from app.observability.access_log import AccessLog
from tests.integration.gateway.served import problem

ROOM = 8
LIST, ORDER, STATUS, CANCEL, PROBE = (
    ("GET", "/v1/orders"),
    ("POST", "/v1/orders"),
    ("GET", "/v1/orders/ord_x"),
    ("POST", "/v1/orders/ord_x/cancel"),
    ("GET", "/livez"),
)


class Full:
    """A gateway without services, in which as many requests are under way as a test wants."""

    def __init__(self) -> None:
        self.held = asyncio.Event()

        @get("/held")
        async def hold() -> str:
            await self.held.wait()
            return "done"

        @get(["/livez", "/v1/orders", "/v1/orders/{one:str}"])
        async def read() -> str:
            return "ok"

        @post(["/v1/orders", "/v1/orders/{one:str}/cancel"])
        async def write() -> str:
            return "ok"

        self.edge = Edge(Litestar([hold, read, write], openapi_config=None), AccessLog(), requests_max=ROOM)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.edge), base_url="http://x")

    async def ask(self, under_way: int, method: str, path: str) -> httpx.Response:
        """The answer to one request beside so many."""
        self.edge._in_flight = under_way
        try:
            return await self.client.request(method, path)
        finally:
            self.edge._in_flight = 0


@pytest.fixture
async def full() -> AsyncIterator[Full]:
    """A gateway with little room."""
    one = Full()
    async with one.client:
        yield one


@pytest.mark.parametrize(
    ("asked", "room"),
    [(LIST, 4), (("GET", "/v1/products"), 4), (ORDER, 6), (STATUS, 8), (("HEAD", STATUS[1]), 8), (CANCEL, 8)],
)
async def test_lists_are_refused_first_and_the_status_of_an_order_last(
    full: Full, asked: tuple[str, str], room: int
):
    """Half of the room is everybody's, three quarters are for new orders, all of it for orders there are."""
    assert (await full.ask(room - 1, *asked)).status_code != 503
    assert (await full.ask(room, *asked)).status_code == 503


async def test_probes_are_never_refused(full: Full):
    """A gateway that is full is not dead."""
    assert (await full.ask(10 * ROOM, *PROBE)).status_code == 200


async def test_a_refusal_is_a_whole_problem_that_says_when_to_come_again(full: Full):
    """With the caller's correlation id, for which nothing of the request was read."""
    full.edge._in_flight = ROOM
    answer = await full.client.post("/v1/orders", content=b"{", headers={"X-Correlation-ID": "c-1"})
    said = problem(answer, 503, "overloaded")
    assert said["correlation_id"] == "c-1"
    assert said["instance"] == "/v1/orders"
    assert answer.headers["retry-after"] in {"1", "2", "3"}


async def test_who_is_refused_together_does_not_come_again_together(full: Full):
    """A third after a second, a third after two, a third after three."""
    answers = [await full.ask(ROOM, "GET", "/v1/orders") for _ in range(9)]
    assert Counter(answer.headers["retry-after"] for answer in answers) == {"1": 3, "2": 3, "3": 3}


async def test_refusals_are_counted_by_route(full: Full):
    """As 503 of the route that was asked for, so that they weigh in the error budget."""
    metrics.serve_for("gateway")
    line = 'holdfast_http_requests_total{method="POST",route="/v1/orders",status="503"} '

    def counted() -> float:
        found = [row for row in metrics.exposition().decode().splitlines() if row.startswith(line)]
        return float(found[0].split()[-1]) if found else 0.0

    before = counted()
    for _ in range(3):
        await full.ask(ROOM, *ORDER)
    assert counted() - before == 3


async def test_what_was_under_way_is_finished_and_makes_room(full: Full):
    """Refusing others takes nothing from those who were let in."""
    holding = [asyncio.create_task(full.client.get("/held")) for _ in range(4)]
    while full.edge._in_flight < 4:
        await asyncio.sleep(0.01)
    assert (await full.client.get("/v1/orders")).status_code == 503
    full.held.set()
    assert [(await one).status_code for one in holding] == [200] * 4
    assert (await full.client.get("/v1/orders")).status_code == 200
