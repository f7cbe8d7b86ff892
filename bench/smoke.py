"""The speed of a whole stack at a glance: confirm an order, import a log, sit idle.

Run it by hand:

    .venv/bin/python bench/smoke.py            the stack that runs here (holdfast up --detach)
    .venv/bin/python bench/smoke.py --own      a stack of its own, in a temporary folder

It places real orders in the stack that it measures. Times of confirmation are those of the events in
PostgreSQL; beside them is what a client waits that asks with `Prefer: wait`. Processor time is read from the
processes themselves. What else runs on the machine is in the figures, so its load is printed with them.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from app.dev import importer
from app.dev.importing import show
from app.dev.importing.api import Api, Going
from app.dev.importing.client import Client
from app.dev.importing.purchases import read
from app.dev.importing.target import Target
from app.dev.stack import status
from app.dev.stack.errors import UNAVAILABLE, StackError
from app.dev.stack.folder import DEFAULT, DataFolder

MODES = ("gateway", "worker", "consumer")
SERVERS = ("postgres", "redis", "temporal", "sandbox")
SAMPLE = Path(__file__).parents[1] / "samples" / "cdnow_1000.txt"
SETTLE_S = 5.0
"""So long nothing has to be under way before it is called idle."""
SETTLED_WITHIN_S = 120.0
WARM_UP = 5

UNDER_WAY = """
SELECT (SELECT count(*) FROM event_outbox) + (SELECT count(*) FROM workflow_outbox)
    + (SELECT count(*) FROM workflow_jobs)
    + (SELECT count(*) FROM mails WHERE state = 'waiting' AND next_at < now() + $1)
    + (SELECT count(*) FROM webhook_deliveries d WHERE state = 'pending' AND next_at < now() + $1
        AND NOT (waits AND EXISTS (SELECT FROM webhook_breakers b
            WHERE b.endpoint_id = d.endpoint_id AND b.open_until IS NOT NULL)))
"""
"""What somebody is to be told, now or within a time. What waits for longer, or for an endpoint that is left
alone, disturbs nobody meanwhile."""


class Figure(msgspec.Struct):
    """One figure beside its goal."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    better: str = "lower"

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value < self.goal if self.better == "lower" else self.value >= self.goal


class Processes:
    """The processes of a stack, by name, each with its children."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._roots = {
            name: [psutil.Process(pid) for pid in found[name].get("pids", [found[name].get("pid")])]
            for name in (*MODES, *SERVERS)
        }

    def cpu_s(self) -> dict[str, float]:
        """Processor time used so far, in seconds."""
        return {name: sum(map(_cpu_s, self._all(name))) for name in self._roots}

    def rss_mb(self) -> dict[str, float]:
        """Resident memory, in megabytes."""
        return {name: sum(p.memory_info().rss for p in self._all(name)) / 1e6 for name in self._roots}

    def _all(self, name: str) -> list[psutil.Process]:
        return [p for root in self._roots[name] for p in (root, *root.children(recursive=True))]


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


async def settled(dsn: str, seconds: float) -> None:
    """Wait until nothing is under way, nor will be for so many seconds. Raises StackError if it never is."""
    connection = await asyncpg.connect(dsn)
    try:
        began = busy_at = time.monotonic()
        while (waits := await connection.fetchval(UNDER_WAY, timedelta(seconds=seconds))) or (
            time.monotonic() - busy_at < SETTLE_S
        ):
            busy_at = time.monotonic() if waits else busy_at
            if busy_at - began > SETTLED_WITHIN_S:
                raise StackError(
                    f"Not idle after {SETTLED_WITHIN_S:g} s: {waits} events, mails or webhooks are under way."
                    " Use --own, or see to whoever does not take them."
                )
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def idle(processes: Processes, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Do nothing; per cent of one core, and megabytes, by process."""
    before, started = processes.cpu_s(), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - started
    after = processes.cpu_s()
    return {name: 100 * (after[name] - before[name]) / took for name in after}, processes.rss_mb()


async def one_at_a_time(target: Target, orders: int) -> tuple[list[float], list[float]]:
    """Place orders one after another; milliseconds to confirmed, by the events and as a client waits."""
    client = Client(target.url, target.api_key, 1)
    api = Api(client, Going(60))
    sku, run = "smoke-disc", uuid.uuid4().hex
    await api.send(
        "PUT", f"/v1/products/{sku}", {"name": "A disc", "price": {"amount": 1467, "currency": "USD"}}
    )
    stock = {"warehouse": "smoke", "delta": orders + WARM_UP, "reason": "smoke"}
    await api.send("POST", f"/v1/inventory/{sku}/adjustments", stock, key=f"smoke-{run}")
    by_events, by_client = [], []
    for number in range(orders + WARM_UP):
        body = {"customer_id": "smoke", "currency": "USD", "lines": [{"sku": sku, "quantity": 1}]}
        body |= {"payment_method": "pm_card_visa"}
        headers = {"Idempotency-Key": f"smoke-{run}-{number}", "Prefer": "wait=20"}
        started = time.perf_counter()
        answer = await client.ask("POST", "/v1/orders", msgspec.json.encode(body), headers)
        waited = time.perf_counter() - started
        order = msgspec.json.decode(answer.body)
        assert answer.status == 200, answer
        happened = await _completed(api, order["id"])
        if number >= WARM_UP:
            by_client.append(waited * 1000)
            confirmed = happened["order.confirmed.v1"] - happened["order.accepted.v1"]
            by_events.append(confirmed.total_seconds() * 1000)
    await client.close()
    return by_events, by_client


async def _completed(api: Api, order_id: str) -> dict[str, datetime]:
    """Wait until an order is completed; when each of its events happened."""
    while True:
        happened: dict[str, datetime] = {}
        async for page in api.pages(f"/v1/orders/{order_id}/events", dict[str, Any]):
            happened |= {event["type"]: datetime.fromisoformat(event["time"]) for event in page}
        if "order.completed.v1" in happened:
            return happened
        await asyncio.sleep(0.05)


async def throughput(target: Target, data_dir: Path, rows: int, processes: Processes) -> list[Figure]:
    """Import the sample's first rows; orders a second to completion, and processor time for each."""
    purchases = read(SAMPLE, rows)
    plan = importer.Plan(target=target, purchases=purchases, data_dir=data_dir, again=True)
    shown = show.shown_on(sys.stderr, len(purchases))
    before = processes.cpu_s()
    try:
        outcome = await importer.run(plan, shown)
    finally:
        shown.close()
    after = processes.cpu_s()
    if outcome.audit.findings:
        raise StackError("The import does not add up: " + "; ".join(outcome.audit.findings[:5]))
    figures = [Figure(f"import of {rows} rows", rows / outcome.seconds, "orders/s", 12, "higher")]
    return figures + [
        Figure(f"  {name}", 1000 * (after[name] - before[name]) / rows, "ms CPU/order") for name in after
    ]


async def measure(found: dict[str, Any], data_dir: Path, arguments: argparse.Namespace) -> list[Figure]:
    """Everything, one after another."""
    target = Target(found["gateway"]["url"], found["api_key"], found["sandbox"]["url"])
    processes = Processes(found)
    by_events, by_client = await one_at_a_time(target, arguments.orders)
    figures = [
        Figure("accepted to confirmed, p50", statistics.median(by_events), "ms", 80),
        Figure("accepted to confirmed, p95", statistics.quantiles(by_events, n=20)[-1], "ms"),
        Figure("POST with Prefer: wait, p50", statistics.median(by_client), "ms"),
        Figure("POST with Prefer: wait, p95", statistics.quantiles(by_client, n=20)[-1], "ms"),
        *await throughput(target, data_dir, arguments.rows, processes),
    ]
    await settled(found["postgres"]["dsn"], SETTLE_S + arguments.idle)
    cpu, rss = await idle(processes, arguments.idle)
    figures.append(Figure("idle, the three modes", sum(cpu[mode] for mode in MODES), "% of a core", 3))
    figures += [Figure(f"  {name}", cpu[name], "% of a core") for name in (*MODES, *SERVERS)]
    figures += [Figure(f"memory of {mode}", rss[mode], "MB", 150) for mode in MODES]
    return figures + [Figure(f"memory of {name}", rss[name], "MB") for name in SERVERS]


@contextmanager
def stack(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Path]]:
    """The stack to measure, and its data folder."""
    data_dir = (
        Path(tempfile.mkdtemp(prefix="holdfast-smoke-")) / "data" if arguments.own else arguments.data_dir
    )
    command = [sys.executable, "-m", "app"]
    if arguments.own:
        subprocess.run(
            [*command, "up", "--detach", "--data-dir", str(data_dir)], check=True, stdout=sys.stderr
        )
    try:
        found = asyncio.run(status.snapshot(DataFolder(data_dir)))
        if found["state"] != status.READY:
            raise StackError(
                f"The stack in {data_dir} is {found['state']}. Start it, or use --own.", UNAVAILABLE
            )
        yield found, data_dir
    finally:
        if arguments.own:
            subprocess.run([*command, "down", "--data-dir", str(data_dir)], check=True, stdout=sys.stderr)
            shutil.rmtree(data_dir.parent, ignore_errors=True)


def print_table(figures: list[Figure], load: tuple[float, float, float]) -> None:
    """The figures, for people."""
    table = Table("", "measured", "goal", "", box=None, pad_edge=False)
    for figure in figures:
        sign = "<" if figure.better == "lower" else "≥"
        goal = "" if figure.goal is None else f"{sign} {figure.goal:g}"
        met = {True: "ok", False: "missed", None: ""}[figure.is_met]
        table.add_row(figure.name, f"{figure.value:,.1f} {figure.unit}", goal, met)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"{os.cpu_count()} cores, load average before {load[0]:.1f}")


def main() -> int:
    """Measure and print; 0 when every goal is reached."""
    parser = argparse.ArgumentParser(description="The speed of a whole stack at a glance.")
    parser.add_argument("--own", action="store_true", help="start a stack for this, and stop it afterwards")
    parser.add_argument("--data-dir", type=Path, default=DEFAULT, help="of the stack that runs (%(default)s)")
    parser.add_argument("--rows", type=int, default=300, help="purchases to import (%(default)s)")
    parser.add_argument("--orders", type=int, default=40, help="orders placed one at a time (%(default)s)")
    parser.add_argument("--idle", type=float, default=20, help="seconds of doing nothing (%(default)g)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    load = os.getloadavg()
    try:
        with stack(arguments) as (found, data_dir):
            figures = uvloop.run(measure(found, data_dir, arguments))
    except StackError as error:
        print(f"smoke: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        rows = [msgspec.to_builtins(figure) | {"met": figure.is_met} for figure in figures]
        print(msgspec.json.encode({"load_before": load[0], "results": rows}).decode())
    else:
        print_table(figures, load)
    return 0 if all(figure.is_met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
