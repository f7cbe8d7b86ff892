"""`holdfast sandbox`: the payment provider, carrier and mail server of development, one process, one file.

Owns the process: options, the listening sockets, the order of start and stop. What the providers speak and
promise is in `payments.py`, `shipments.py`, `webhooks.py` and `mails.py`; how to make them misbehave in
docs/SANDBOX.md. SIGTERM and SIGINT: stop listening, answer what is being worked on, stop the deliveries,
close the file; exit 0. If the process dies here, whatever was answered is in the file, and the next process
goes on from it.
"""

import argparse
import asyncio
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from app.dev.sandbox import books, idempotency, mails, payments, shipments, webhooks
from app.dev.sandbox.control import Control, Delays
from app.dev.sandbox.http import Connections, Reply, Request, Response
from app.dev.sandbox.store import Store, StoreUnusable
from app.infra.outbound import Outbound
from app.usage import EXIT_USAGE, Parser

EXIT_FAILED, EXIT_CONFIGURATION = 1, 78
DRAIN_TIMEOUT_S = 3.0
FORGET_EVERY_S = 3600.0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="holdfast sandbox", description="Payment provider and carrier for development.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--smtp-port", type=int, help="take mails here; without it none are taken")
    parser.add_argument(
        "--data", type=Path, default=Path(".holdfast/sandbox.sqlite3"), help="the file of both"
    )
    parser.add_argument("--webhook-url", help="where the carrier reports to; without it nothing is reported")
    environment = os.environ
    parser.add_argument(
        "--pickup-ms",
        type=int,
        default=environment.get("HOLDFAST_SANDBOX_PICKUP_MS", "50"),
        help="from release to pick-up (default: %(default)s)",
    )
    parser.add_argument(
        "--delivery-ms",
        type=int,
        default=environment.get("HOLDFAST_SANDBOX_DELIVERY_MS", "100"),
        help="from pick-up to delivery (default: %(default)s)",
    )
    parser.add_argument(
        "--synchronous",
        choices=("full", "normal"),
        default="full",
        help="full: answers survive a power cut; normal: the death of the process (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if options.pickup_ms < 0 or options.delivery_ms < 0:
        parser.error("delays are 0 or more milliseconds")
    return options


class Sandbox:
    """All providers on one store; the handler of every request."""

    def __init__(self, store: Store, control: Control, receiver: Outbound | None, secret: bytes) -> None:
        self._store = store
        self._control = control
        self._webhooks = webhooks.Webhooks(store, control, receiver, secret)
        self._carrier = shipments.CarrierApi(store, control, self._webhooks)
        self._payments = payments.PaymentsApi(store, control)
        self.mails = mails.Mails(store)
        self._forgetting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up deliveries and parcels that were under way."""
        await self._webhooks.start()
        await self._carrier.start()
        self._forgetting = asyncio.get_running_loop().create_task(self._forget())

    async def stop(self) -> None:
        """Stop what runs by itself."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        await self._carrier.stop()
        await self._webhooks.stop()

    async def handle(self, request: Request) -> Reply:
        """Send a request to the provider it is for."""
        if request.path.startswith(payments.PREFIXES):
            return await self._payments.handle(request)
        if request.path.startswith(shipments.PREFIX):
            return await self._carrier.handle(request)
        if request.path.startswith(mails.PREFIX):
            return await self.mails.handle(request)
        if request.path == "/livez":
            return Response(200, b'{"status":"ok"}')
        if request.path.startswith("/control"):
            return self._control.handle(request, await self._store.run(_books))
        return Response(
            404, b'{"error":{"type":"invalid_request_error","message":"Unrecognized request URL"}}'
        )

    async def _forget(self) -> None:
        """Once an hour: idempotency keys older than a day go."""
        while True:
            try:
                while await self._store.run(
                    lambda database: idempotency.forget_expired(database, time.time())
                ):
                    pass
            except sqlite3.Error:  # a full disk: keys may stay longer
                pass
            await asyncio.sleep(FORGET_EVERY_S)


def _books(database: sqlite3.Connection) -> dict[str, Any]:
    return {
        "ledger": books.totals(database),
        "shipments": shipments.counts(database),
        "webhooks_waiting": webhooks.count(database),
    }


async def serve(options: argparse.Namespace, store: Store, receiver: Outbound | None, secret: bytes) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    control = Control(Delays(pickup_ms=options.pickup_ms, delivery_ms=options.delivery_ms))
    sandbox = Sandbox(store, control, receiver, secret)
    connections = Connections(sandbox.handle)
    port = options.smtp_port
    try:
        if options.smtp_port is not None:
            await sandbox.mails.listen(options.host, options.smtp_port)
        port = options.port
        server = await loop.create_server(connections, options.host, options.port, backlog=512)
    except OSError as error:
        sys.stderr.write(f"holdfast sandbox: cannot listen on {options.host}:{port}: {error.strerror}\n")
        return EXIT_FAILED
    await sandbox.start()
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"sandbox ready on http://{options.host}:{port}\n")
    sys.stdout.flush()
    await asked_to_stop.wait()
    server.close()
    sandbox.mails.close()
    await connections.drain(DRAIN_TIMEOUT_S)
    await sandbox.stop()
    return 0


def main(argv: list[str]) -> int:
    """Run the sandbox; returns the exit code."""
    options = _options(argv)
    secret = os.environ.get("CARRIER_WEBHOOK_SECRET", "")
    receiver = None
    if options.webhook_url:
        if not secret:
            sys.stderr.write("CARRIER_WEBHOOK_SECRET: must be set, the carrier signs its webhooks with it\n")
            return EXIT_CONFIGURATION
        try:
            receiver = Outbound(options.webhook_url)
        except ValueError as error:
            sys.stderr.write(f"holdfast sandbox: --webhook-url {error}\n")
            return EXIT_USAGE
    try:
        store = Store(options.data, options.synchronous)
    except (StoreUnusable, OSError) as error:
        sys.stderr.write(f"holdfast sandbox: {error}\n")
        return EXIT_FAILED
    try:
        return uvloop.run(_until_stopped(options, store, receiver, secret.encode()))
    except KeyboardInterrupt:
        return 0


async def _until_stopped(
    options: argparse.Namespace, store: Store, receiver: Outbound | None, secret: bytes
) -> int:
    try:
        return await serve(options, store, receiver, secret)
    finally:
        store.close()
