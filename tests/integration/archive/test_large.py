"""A month of many events: whoever archives, audits and puts it back holds little of it at a time."""

import asyncio
import os
import subprocess
import sys
from datetime import timedelta

import pytest

from app.domain.chain import chain
from app.domain.events import PriceChanged
from app.domain.money import Money
from tests.integration.archive.ages import GROUPS, ROOT, Ages, day, month
from tests.integration.postgres.past import sealed, store

SKUS = 4_000
EACH = 40
PEAK_KIB_MAX = 100_000
"""The program alone takes 40,000; 160,000 events would take more than the rest."""

RUN = """
import sys
from {module} import main
code = main(sys.argv[1:])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0], file=sys.stderr)
sys.exit(code)
"""


async def peak_of(url: str, module: str, *arguments: str) -> int:
    """The greatest size of a command's process, in KiB."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", RUN.format(module=module), *arguments],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "DATABASE_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    print(*arguments, done.stdout, done.stderr)
    return int(done.stderr.split()[-1])


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_large_month_is_handled_a_block_at_a_time(ages: Ages):
    """Archived, audited here, dropped, audited there, put back, audited again."""
    await ages.connection.execute("SET session_replication_role = replica")
    await ages.connection.execute("DELETE FROM seal_leaves")
    await ages.connection.execute("DELETE FROM seals")
    await ages.connection.execute("RESET session_replication_role")
    at = month(-4) + timedelta(days=1)
    event = PriceChanged(None, Money(1, "USD"))
    chains = [chain(None, f"sku-{n:06}", 0, (event,) * EACH, at, "cor_1", None) for n in range(SKUS)]
    await store(ages.connection, [event for events in chains for event in events])
    await ages.connection.execute(
        "INSERT INTO marks (consumer_group, subject, sequence)"
        " SELECT g, sku, version FROM products, unnest($1::text[]) AS g ON CONFLICT DO NOTHING",
        list(GROUPS),
    )
    await sealed(ages.database)
    archive, events, audit = str(ages.folder), "app.infra.archive.commands", "app.infra.postgres.audit"
    before, last = f"{day(-3):%Y-%m}", f"{day(-4):%Y-%m}"
    peaks = [
        await peak_of(ages.url, events, "archive", "--to", archive, "--before", before),
        await peak_of(ages.url, audit, "verify"),
        await peak_of(ages.url, events, "drop", "--before", before, "--yes"),
        await peak_of(ages.url, audit, "verify"),
        await peak_of(ages.url, events, "restore", "--month", last),
        await peak_of(ages.url, audit, "verify"),
    ]
    assert max(peaks) < PEAK_KIB_MAX, peaks
