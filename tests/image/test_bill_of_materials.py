"""The list of what is in the image: every package with its version and licence, and nothing else."""

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.image.containers import Engine, listed

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
LIST = ROOT / "build/holdfast.cdx.json"

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(image: str) -> Document:
    """Made by `make sbom`, of this image."""
    subprocess.run(["sh", ROOT / "image/sbom.sh"], env=os.environ | {"IMAGE": image}, check=True)
    return json.loads(LIST.read_text(encoding="utf-8"))


def of_kind(document: Document, kind: str) -> set[tuple[str, str]]:
    """Name and version of every package of a kind (`pypi`, `deb`)."""
    return {
        (one["name"].lower(), one["version"])
        for one in document["components"]
        if one["purl"].startswith(f"pkg:{kind}/")
    }


async def test_it_lists_every_debian_package_and_no_other(
    engine: Engine, image: str, document: Document
) -> None:
    """As dpkg in the image says."""
    said = await engine.shell(image, "dpkg-query --show --showformat '${Package} ${Version}\\n'")
    assert of_kind(document, "deb") == {tuple(line.split()) for line in listed(said)}


async def test_it_lists_every_python_package_and_no_other(
    engine: Engine, image: str, document: Document
) -> None:
    """As the interpreter that runs the program says, and the one below it."""
    code = (
        "from importlib.metadata import distributions as all\nfor one in all(): print(one.name, one.version)"
    )
    said = await engine.shell(
        image, f'for python in /opt/holdfast/bin/python python3; do $python -I -c "{code}"; done'
    )
    found = {tuple(line.lower().split()) for line in listed(said)}
    assert of_kind(document, "pypi") == found
    assert len(found) > 30


def test_each_package_says_its_licence(document: Document) -> None:
    """A name of SPDX where there is one, else what its author calls it."""
    silent = [
        one["name"]
        for one in document["components"]
        if not any(
            said.get("expression") or said["license"].get("id") or said["license"].get("name")
            for said in one.get("licenses", [])
        )
    ]
    assert silent == []


def test_it_says_whose_it_is(document: Document) -> None:
    """The image, its version, and what it needs first."""
    whole = document["metadata"]["component"]
    assert (whole["name"], whole["type"]) == ("holdfast", "container")
    assert whole["version"]
    needs = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    assert {name.partition("==")[0] for name in needs[whole["bom-ref"]]} >= {
        "asyncpg",
        "granian",
        "temporalio",
    }


def test_the_same_image_has_the_same_list(image: str, document: Document) -> None:
    """To the byte: nothing says when or where it was made."""
    before = LIST.read_bytes()
    subprocess.run(["sh", ROOT / "image/sbom.sh"], env=os.environ | {"IMAGE": image}, check=True)
    assert LIST.read_bytes() == before


def test_a_package_that_the_lock_does_not_name_is_refused(document: Document, tmp_path: Path) -> None:
    """Whatever found its way into the image is noticed before it is published."""
    told = {"components": document["components"], "dependencies": [], "metadata": document["metadata"]}
    listing, files = tmp_path / "python.json", tmp_path / "image.tar"
    listing.write_text(json.dumps(told), encoding="utf-8")
    tarfile.open(files, "w").close()
    lock = tmp_path / "other.lock"
    lock.write_text("stranger==1\n", encoding="utf-8")
    command = [ROOT / ".venv/sbom/bin/python", ROOT / "image/sbom.py", "merge", listing, listing, files, lock]
    done = subprocess.run([*command, tmp_path / "to"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "asyncpg" in done.stderr
