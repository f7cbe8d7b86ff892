"""What image/install.sh takes out of the packages is missed by nobody. No container engine is needed here."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRIP = ROOT / "image" / "strip.py"
USED = {
    "asyncpg": "import asyncpg.protocol.protocol, asyncpg.pgproto.pgproto as p; p.UUID(bytes(16))",
    "hiredis": "import hiredis; r = hiredis.Reader(); r.feed(b'+OK\\r\\n'); assert r.gets() == b'OK'",
    "temporalio": "import temporalio.bridge.temporal_sdk_bridge as bridge; assert bridge.ClientRef",
    "uvloop": "import uvloop, asyncio; assert uvloop.run(asyncio.sleep(0.01, 5)) == 5",
}
"""A package with compiled modules → something that runs in them."""


def test_what_is_uninstalled_is_imported_by_no_mode():
    """The framework asks for it and does without."""
    script = (ROOT / "image" / "install.sh").read_text(encoding="utf-8")
    (names,) = re.findall(r"^    pip uninstall .*--yes (.+)$", script, re.MULTILINE)
    lines = [f"sys.modules[{name!r}] = None" for name in names.split()]
    modes = ("gateway", "worker", "consumer")
    lines += [f"import app.{'workers' if mode == 'worker' else mode}.run" for mode in modes]
    lines += [
        "import app.gateway.application, app.gateway.openapi",
        "from litestar import Litestar; Litestar()",
    ]
    program = "\n".join(("import sys", *lines))
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=100)


@pytest.mark.parametrize("name", USED)
def test_a_stripped_module_runs(name: str, tmp_path: Path):
    """It is smaller than it was or as large, and stays what it is when it is stripped again."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    copy = tmp_path / name
    shutil.copytree(Path(spec.origin).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = sizes(tmp_path)
    subprocess.run([sys.executable, STRIP, tmp_path], check=True, timeout=100)
    after = sizes(tmp_path)
    assert before.keys() == after.keys()
    assert sum(after.values()) < sum(before.values())
    shown = f"import {name}; assert {name}.__file__.startswith({str(tmp_path)!r}); {USED[name]}"
    told = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", shown], check=True, env=told, timeout=100)
    subprocess.run([sys.executable, STRIP, tmp_path], check=True, timeout=100)
    assert sizes(tmp_path) == after


def test_what_is_no_module_is_left_alone(tmp_path: Path):
    """Whatever it is called."""
    contents = {
        "a.so": b"",
        "b.so": b"\x7fELF\x02\x01",
        "c.so.1": b"no ELF at all",
        "d.txt": b"\x7fELF\x02\x01",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    subprocess.run([sys.executable, STRIP, tmp_path], check=True, timeout=100)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == contents


def test_what_the_image_is_made_of_is_sent_to_the_engine():
    """A file that .dockerignore keeps back is missing in the build."""
    let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE))
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Containerfile").read_text("utf-8"), re.MULTILINE
    )
    sources = {source.rstrip("*") for line in copied for source in line.split()}
    assert "image/strip.py" in sources
    assert sources <= let_through


def sizes(folder: Path) -> dict[Path, int]:
    """The compiled modules, and how large they are."""
    return {file: file.stat().st_size for file in folder.rglob("*.so*")}
