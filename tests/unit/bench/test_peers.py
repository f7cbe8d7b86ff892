"""The lock of what the benchmarks compare with."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def locked(name: str) -> dict[str, str]:
    """Name → version of a lock file."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", text, re.MULTILINE))


def test_the_peers_lock_has_a_hash_for_everything_and_no_address():
    """As the other locks."""
    text = (ROOT / "requirements" / "bench.lock").read_text("utf-8")
    blocks = re.split(r"\n(?=[a-z])", text)[1:]
    assert [block.split(" ")[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"^.*(?:://|--index|--find-links).*$", text, re.MULTILINE) == []


def test_peers_change_nothing_of_what_the_tests_ran_with():
    """They are added to the development environment, which stays what it was."""
    development, all_of_it = locked("dev.lock"), locked("bench.lock")
    assert development.items() <= all_of_it.items()


def test_the_lock_holds_what_the_extra_names():
    """Whoever adds a peer runs `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {re.match(r"[\w-]+", each)[0] for each in project["optional-dependencies"]["bench"]} - {
        "holdfast"
    }
    assert {"redis", "coredis", "valkey-glide", "dbos"} <= named <= locked("bench.lock").keys()
