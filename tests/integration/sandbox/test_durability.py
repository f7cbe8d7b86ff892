"""What the sandbox answered survives the death of its process; what it did is never done twice."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from app.dev.sandbox.audit import audit_payments
from tests.integration.sandbox.process import SandboxProcess

ORDERS = 120
AT_ONCE = 30
KEY = {"authorization": "Bearer sk_test_x"}
UNANSWERED = (httpx.TransportError, AttributeError)
"""AttributeError: anyio asks for the peer of a uvloop socket that was closed that moment."""


class Shop:
    """Takes orders through create, confirm, capture and book, release; asks again until it is answered."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self._sandbox = sandbox
        self._http = httpx.AsyncClient(base_url=sandbox.url, headers=KEY, timeout=30)
        self.answered: dict[str, bytes] = {}
        self.unanswered = 0
        self._progress = asyncio.Condition()

    async def post(self, path: str, key: str, form: dict[str, str]) -> dict[str, object]:
        """Ask the payment provider until it answers."""
        while True:
            try:
                headers = {"idempotency-key": key}
                answer = await self._http.post(path, data=form, headers=headers)
            except UNANSWERED:
                self.unanswered += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 409:
                continue
            assert answer.status_code == 200, answer.text
            async with self._progress:
                self.answered[key] = answer.content
                self._progress.notify_all()
            return answer.json()

    async def until_answered(self, count: int, running: asyncio.Future[object]) -> None:
        """Wait for so many answers; fails at once when the shop has failed."""

        async def enough() -> None:
            async with self._progress:
                await self._progress.wait_for(lambda: len(self.answered) >= count)

        waiting = asyncio.create_task(enough())
        await asyncio.wait([waiting, running], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await running
        assert waiting.done(), "the shop was done before it was to be disturbed"

    async def carrier(self, method: str, path: str, body: dict[str, object] | None = None) -> None:
        """Ask the carrier until it answers."""
        while True:
            try:
                answer = await self._http.request(method, path, json=body)
            except UNANSWERED:
                self.unanswered += 1
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code in (200, 201), answer.text
            return

    async def order(self, number: int) -> None:
        """Take one order all the way."""
        create = {
            "amount": str(1000 + number),
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "capture_method": "manual",
            "metadata[order_id]": f"ord_{number}",
        }
        intent = await self.post("/v1/payment_intents", f"pay:{number}:create:1", create)
        path = f"/v1/payment_intents/{intent['id']}"
        await self.post(f"{path}/confirm", f"pay:{number}:confirm:1", {})
        booking = {"warehouse": "east", "lines": [{"sku": "a", "quantity": 1}]}
        await self.carrier("PUT", f"/v1/shipments/ful_{number}_1", booking)
        await self.carrier("POST", f"/v1/shipments/ful_{number}_1/release")
        await self.post(f"{path}/capture", f"pay:{number}:capture:1", {})

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._http.aclose()

    async def run(self) -> None:
        """All orders, some at once."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with places:
                await self.order(number)

        async with asyncio.TaskGroup() as group:
            for number in range(ORDERS):
                group.create_task(one(number))


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[SandboxProcess], Shop]]:
    """Opens a shop at a sandbox; its connections are closed at the end."""
    async with AsyncExitStack() as stack:

        def open_at(sandbox: SandboxProcess) -> Shop:
            shop = Shop(sandbox)
            stack.push_async_callback(shop.close)
            return shop

        yield open_at


async def test_kill_9_in_the_middle_loses_and_doubles_nothing(start, receiver, opened):
    """Killed four times under load: each order has one intent and one capture, and every parcel arrives."""
    sandbox = await start(receiver.url)
    shop = opened(sandbox)
    running = asyncio.create_task(shop.run())
    for answers in (40, 120, 200, 300):
        await shop.until_answered(answers, running)
        await sandbox.kill()
        await sandbox.start()
    await running
    assert shop.unanswered > 0
    audit = await audit_payments(sandbox.url)
    assert audit.intents == ORDERS
    assert set(audit.intents_per_order.values()) == {1}
    assert set(audit.captures_per_order.values()) == {1}
    total = sum(1000 + number for number in range(ORDERS))
    assert audit.captured == {"usd": total}
    assert (await sandbox.state())["ledger"] == {"usd": {"authorized": total, "captured": total}}
    arrived = ["shipment.picked_up", "shipment.delivered"]
    references = [f"ful_{number}_1" for number in range(ORDERS)]
    await receiver.until(lambda: all("shipment.delivered" in receiver.taken(each) for each in references))
    for reference in references:
        assert list(dict.fromkeys(receiver.taken(reference))) == arrived


async def test_every_answer_is_given_again_after_kill_9(start, opened):
    """An answer received before the kill is byte for byte the answer to the same key afterwards."""
    sandbox = await start()
    shop = opened(sandbox)
    forms = {f"k{number}": {"amount": str(1 + number), "currency": "eur"} for number in range(200)}
    running = asyncio.gather(
        *(shop.post("/v1/payment_intents", key, form) for key, form in forms.items()), return_exceptions=True
    )
    await shop.until_answered(20, running)
    await sandbox.kill()
    before = dict(shop.answered)
    await sandbox.start()
    await running
    async with httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as http:
        for key, body in before.items():
            headers = {"idempotency-key": key}
            answer = await http.post("/v1/payment_intents", data=forms[key], headers=headers)
            assert answer.content == body
            assert answer.headers["idempotent-replayed"] == "true"
    assert (await audit_payments(sandbox.url)).intents == len(forms)


async def test_sigterm_ends_it_cleanly_and_the_file_is_whole(start, opened):
    """Exit code 0, no write-ahead log left behind, and SQLite finds nothing wrong."""
    sandbox = await start()
    await opened(sandbox).order(1)
    assert await sandbox.stop() == 0
    assert not sandbox.data.with_name(sandbox.data.name + "-wal").exists()
    with sqlite3.connect(sandbox.data) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_second_sandbox_on_the_same_file_is_refused(start):
    """One line, exit code 1; the first one goes on."""
    sandbox = await start()
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "sandbox", "--port", "0", "--data", str(sandbox.data)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await second.communicate()
    assert second.returncode == 1
    assert b"another sandbox is using it" in told
    assert (await sandbox.state())["faults"] == []


async def test_wrong_settings_stop_it_at_start(tmp_path):
    """No secret for the webhooks: 78, named. Wrong usage: 64."""
    data = ("--data", str(tmp_path / "x.sqlite3"), "--port", "0")
    for options, code, words in (
        (("--webhook-url", "http://127.0.0.1:1/"), 78, b"CARRIER_WEBHOOK_SECRET"),
        (("--colour", "red"), 64, b"--colour"),
        (("--pickup-ms", "-1"), 64, b"delays"),
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "sandbox", *data, *options), stderr=asyncio.subprocess.PIPE, env={}
        )
        _, told = await process.communicate()
        assert (process.returncode, words in told) == (code, True), told
