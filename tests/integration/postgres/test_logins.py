"""A login that PostgreSQL refuses: modes wait, say why, and go on by themselves when it is taken again."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.dev.seed import seed
from app.dev.servers import EmbeddedPostgres
from app.dev.stack.ports import any_free
from app.domain.errors import Unavailable
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.migrate import migrate
from app.infra.postgres.pool import Database, LoginRefusedError
from tests.integration.consumer import processes as consumers
from tests.integration.gateway import process as gateways
from tests.integration.gateway.served import KEY
from tests.integration.postgres.roles import PASSWORD, Role, role_of_own
from tests.integration.reprice.workers import ENVIRONMENT, working
from tests.stack import Postgres, Temporal

ORDER = {
    "customer_id": "cust-1",
    "currency": "USD",
    "lines": [{"sku": "tea-earl-grey", "quantity": 1}],
    "payment_method": "pm_card_visa",
}


@pytest.fixture
async def role(embedded_postgres: EmbeddedPostgres) -> AsyncIterator[Role]:
    """A role with a migrated database of its own, on a server where roles can be made."""
    async with role_of_own(Postgres(embedded_postgres.dsn), "logins") as role:
        await migrate(role.admin_url)
        yield role


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(60):
        while not await is_so():
            await asyncio.sleep(0.05)


def said(log: str, event: str) -> list[dict[str, Any]]:
    """The lines of a log about that."""
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


async def test_all_modes_wait_for_a_login_and_go_on_by_themselves(
    role: Role, redis_url: str, temporal_server: Temporal, tmp_path: Path
):
    """At the start and in the middle: 503, not ready, one line with what the server says; then 202 again."""
    await seed(role.admin_url, KEY, ENVIRONMENT)
    await role.refuse()
    port = any_free()
    async with AsyncExitStack() as stack:
        settings = {"ENVIRONMENT": ENVIRONMENT, "LOG_FORMAT": "json"}
        gateway = await stack.enter_async_context(
            gateways.running(port, role.url, redis_url, tmp_path, **settings)
        )
        consumer = await stack.enter_async_context(consumers.running(role.url, redis_url, **settings))
        worker = await stack.enter_async_context(working(role.url, redis_url, temporal_server))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
        ports = (port, consumer.port, int(worker.environ["HEALTH_PORT"]))

        async def readiness() -> set[int]:
            found = set()
            for one in ports:
                try:
                    found.add((await http.get(f"http://127.0.0.1:{one}/readyz")).status_code)
                except httpx.TransportError:  # it does not listen yet
                    found.add(0)
            return found

        def logs() -> tuple[str, str, str]:
            return gateway.log.read_text("utf-8"), consumer.log(), worker.log()

        async def order() -> int:
            headers = {"Idempotency-Key": str(next(keys))}
            return (await gateway.client.post("/v1/orders", json=ORDER, headers=headers)).status_code

        async def all_said(event: str, times: int) -> bool:
            return all(len(said(log, event)) >= times for log in logs())

        async def is_refused() -> bool:
            return await all_said("postgres_is_away", outage) and await readiness() == {503}

        async def is_back() -> bool:
            return await all_said("postgres_is_back", outage) and await readiness() == {200}

        keys = iter(range(1000))
        for outage in (1, 2):
            await until(is_refused)
            assert await order() == 503
            await role.take()
            await until(is_back)
            assert await order() == 202
            if outage == 1:
                await role.refuse()
                assert await order() == 503  # at once, too
        assert gateway.process.returncode is None
        assert consumer.process is not None
        assert consumer.process.returncode is None
        assert worker.is_alive()
        for log in logs():
            sentence = f'password authentication failed for user "{role.name}"'
            assert sentence in said(log, "postgres_is_away")[0]["error"]
            assert "Traceback" not in log
            assert PASSWORD not in log
        assert (await gateway.stop(), await consumer.end()) == (0, 0)


async def test_whatever_is_wrong_with_a_login_is_said_in_the_servers_words(role: Role):
    """Of pools and of connections of one's own; never with the password."""
    none = "nobody-has-this-one"
    refused = {
        role.with_login(none): f'password authentication failed for user "{role.name}"',
        role.with_login(none, user="nobody"): 'password authentication failed for user "nobody"',
        role.with_login(PASSWORD, database="nowhere"): 'database "nowhere" does not exist',
    }
    for url, sentence in refused.items():
        database = await Database(url, size=1, name="test").open()
        with pytest.raises(LoginRefusedError) as of_pool:
            await database.is_well()
        await database.close()
        with pytest.raises(LoginRefusedError) as of_outbox:
            async with open_outbox(url, "source"):
                pass
        for found in (of_pool.value, of_outbox.value):
            assert isinstance(found, Unavailable)
            assert str(found) == f"postgres is unavailable: {sentence}"


async def test_a_role_that_may_not_log_in_or_not_into_this_database_is_refused(
    role: Role, embedded_postgres: EmbeddedPostgres
):
    """Not only a wrong password."""
    server = Postgres(embedded_postgres.dsn)
    database = await Database(role.url, size=1, name="test").open()
    try:
        await server.execute(f"ALTER ROLE {role.name} NOLOGIN")
        with pytest.raises(LoginRefusedError, match="not permitted to log in"):
            await database.is_well()
        await server.execute(f"ALTER ROLE {role.name} LOGIN")
        await server.execute(f"REVOKE {urlsplit(server.dsn).username} FROM {role.name}")
        await server.execute("REVOKE CONNECT ON DATABASE logins FROM PUBLIC")
        with pytest.raises(LoginRefusedError, match="permission denied for database") as refused:
            await database.is_well()
        assert "\n" not in str(refused.value)
        await server.execute("GRANT CONNECT ON DATABASE logins TO PUBLIC")
        assert await database.is_well()
    finally:
        await database.close()
