"""The three modes from the image: orders come to their ends, and SIGTERM in the middle loses nothing."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack
from tests.image.conftest import MODES
from tests.image.containers import Container

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

PURCHASES = 200
ORDERS = 60
AT_ONCE = 8
SAMPLE = Path(__file__).parents[2] / "samples/cdnow_1000.txt"


async def test_a_purchase_log_becomes_settled_orders(
    stack_without_modes: tuple[Stack, dict[str, Mapping[str, str]]], modes: dict[str, Container]
) -> None:
    """Money, stock and statuses add up."""
    stack, _ = stack_without_modes
    code, said = await stack.command(
        "import", str(SAMPLE), "--limit", str(PURCHASES), "--json", timeout_s=240
    )
    assert code == 0, said + await modes["worker"].logs()
    outcome = json.loads(said[said.index("{") :])
    assert outcome["ok"]
    assert sum(outcome["statuses"].values()) == PURCHASES


@pytest.mark.parametrize("mode", MODES)
async def test_sigterm_under_load_loses_nothing(
    stack_without_modes: tuple[Stack, dict[str, Mapping[str, str]]], modes: dict[str, Container], mode: str
) -> None:
    """It ends by itself with 0; another takes its place; every order that was accepted is completed."""
    stack, _ = stack_without_modes
    shop = Shop(await stack.status())
    sku = f"image-{mode}"
    try:
        await shop.stock(sku, 10 * ORDERS)
        limit = asyncio.Semaphore(AT_ONCE)

        async def place(number: int) -> int:
            async with limit:
                return (await shop.place(f"{sku}-{number}", sku)).status_code

        placing = [asyncio.create_task(place(number)) for number in range(ORDERS)]
        while sum(task.done() for task in placing) < ORDERS / 3:
            await asyncio.wait([t for t in placing if not t.done()], return_when=asyncio.FIRST_COMPLETED)
        assert await modes[mode].stop() == 0, await modes[mode].logs()
        await modes[mode].remove()
        await modes[mode].start()
        assert set(await asyncio.gather(*placing)) == {202}
        assert await shop.audit() == {"completed": ORDERS}
    finally:
        await shop.close()


async def test_orphans_are_buried(modes: dict[str, Container]) -> None:
    """What a command inside leaves behind does not stay as a zombie."""
    orphan = "(sleep 0.2 & ) ; exit 0"
    states = 'for f in /proc/[0-9]*/stat; do read -r line < $f && echo "$line"; done 2>/dev/null'
    for container in modes.values():
        for _ in range(3):
            await container.execute("sh", "-c", orphan)
        async with asyncio.timeout(20):
            while "(sleep)" in (await container.execute("sh", "-c", states))[1]:
                await asyncio.sleep(0.1)


async def test_the_engine_sees_that_it_is_well(modes: dict[str, Container]) -> None:
    """By the image's own health check."""
    for container in modes.values():
        async with asyncio.timeout(60):
            while True:
                state = (await container.engine.inspect(container.id))["State"]
                if state["Health"]["Status"] == "healthy":
                    break
                await asyncio.sleep(0.5)


async def test_each_logs_json_and_no_secret(
    stack_without_modes: tuple[Stack, dict[str, Mapping[str, str]]], modes: dict[str, Container]
) -> None:
    """One object a line; keys and passwords are in none."""
    _, told = stack_without_modes
    for mode, container in modes.items():
        said = await container.logs()
        for line in said.splitlines():
            assert isinstance(json.loads(line), dict), line
        for name in ("STRIPE_API_KEY", "CARRIER_WEBHOOK_SECRET"):
            assert told[mode].get(name, "-") == "-" or told[mode][name] not in said
