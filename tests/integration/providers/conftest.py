"""The adapters under one contract: on the sandbox's process, and in memory."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.errors import Declined
from app.domain.ports import Carrier, Payments
from app.infra.carriers.http import HttpCarrier
from app.infra.memory.carrier import InMemoryCarrier
from app.infra.memory.payments import InMemoryPayments
from app.infra.payments.stripe import StripePayments
from tests.integration.sandbox.process import SandboxProcess

KEY = "sk_test_of_the_adapter"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def shared_sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxProcess]:
    """One sandbox for this folder's tests; each uses references and keys of its own."""
    folder: Path = tmp_path_factory.mktemp("providers")
    process = SandboxProcess(folder / "sandbox.sqlite3")
    await process.start()
    yield process
    await process.stop()


@pytest.fixture
async def sandbox(shared_sandbox: SandboxProcess) -> AsyncIterator[SandboxProcess]:
    """The sandbox, well behaved at the beginning and at the end."""
    yield shared_sandbox
    await shared_sandbox.heal()


@pytest.fixture
def name() -> str:
    """A word that no other test uses, for keys and references."""
    return f"t{next(_numbers)}"


@pytest.fixture
async def stripe_payments(sandbox: SandboxProcess) -> AsyncIterator[StripePayments]:
    """The adapter of production, at the sandbox."""
    payments = StripePayments(KEY, api_base=sandbox.url, call_timeout_s=2.0)
    yield payments
    await payments.aclose()


@pytest.fixture
async def http_carrier(sandbox: SandboxProcess) -> AsyncIterator[HttpCarrier]:
    """The adapter of production, at the sandbox."""
    carrier = HttpCarrier(sandbox.url, call_timeout_s=2.0)
    yield carrier
    await carrier.aclose()


@pytest.fixture(params=["stripe", "memory"])
def payments(request: pytest.FixtureRequest) -> Payments:
    """Each adapter of the port."""
    if request.param == "stripe":
        adapter: Payments = request.getfixturevalue("stripe_payments")
        return adapter
    declines = {
        "pm_card_chargeDeclinedInsufficientFunds": Declined("card_declined", "insufficient_funds", "No."),
        "pm_card_chargeDeclinedExpiredCard": Declined("expired_card", None, "Expired."),
        "pm_card_authenticationRequired": Declined("authentication_required", "authentication_required", "?"),
    }
    return InMemoryPayments(declines, frozenset({"pm_nobody_knows"}))


@pytest.fixture(params=["http", "memory"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    """Each adapter of the port."""
    if request.param == "http":
        adapter: Carrier = request.getfixturevalue("http_carrier")
        return adapter
    return InMemoryCarrier()
