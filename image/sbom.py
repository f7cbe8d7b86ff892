"""The two steps of image/sbom.sh that no tool does: run by .venv/sbom's Python.

    sbom.py collect IMAGE.tar ENVIRONMENT           copy what the image's Python packages say of themselves
    sbom.py merge PYTHON DEBIAN IMAGE.tar LOCK TO   make one document of the two, complete and right

It ends with an error where a Python package is not what the lock names, or any says nothing of its licence.
"""

import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

Component = dict[str, Any]

OURS = "opt/holdfast/"
METADATA = re.compile(r"(?:opt/holdfast|usr/local)/lib/python3[.\d]*/site-packages/([^/]+\.dist-info/.+)")
VERSION = re.compile(r"usr/local/include/python3[.\d]*/patchlevel\.h")
COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
IN_WORDS = re.compile(r"^License: +(\S.*?) *$|/usr/share/common-licenses/([A-Za-z][\w.-]*\w)", re.MULTILINE)
"""Where a Debian package keeps its licence, and how it is named there, where it is not one of SPDX's."""
UNNAMED = {"dumb-init": "MIT", "protobuf": "BSD-3-Clause", "rich-click": "MIT"}
"""Python packages whose description has no name that SPDX knows: as the licence beside it reads."""


def bare(name: str) -> str:
    """A Python package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def content(files: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """What is in a regular file of an archive."""
    stream = files.extractfile(member)
    assert stream, member.name
    return stream.read()


def collect(image: Path, environment: Path) -> None:
    """Copy the packages' own descriptions from the image's file system."""
    (site,) = environment.glob("lib/python3*/site-packages")
    with tarfile.open(image) as files:
        for member in files:
            found = METADATA.fullmatch(member.name)
            if found and member.isfile():
                to = site / found[1]
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(content(files, member))


def read(image: Path) -> tuple[dict[str, str], Component | None]:
    """The words of the Debian packages' licences, and the interpreter where it is no Debian package."""
    words: dict[str, str] = {}
    links: dict[str, str] = {}
    found = None
    with tarfile.open(image) as files:
        for member in files:
            package = COPYRIGHT.fullmatch(member.name)
            if VERSION.fullmatch(member.name):
                text = content(files, member).decode()
                found = interpreter(re.search(r'PY_VERSION\s+"([^"]+)"', text)[1])
            elif package and member.isfile():
                words[package[1]] = content(files, member).decode(errors="replace")
            elif package:
                links[package[1]] = Path(member.linkname).parent.name
            elif member.issym() and Path(member.name).parent.as_posix() == "usr/share/doc":
                links[Path(member.name).name] = Path(member.linkname).name
    return words | {name: words[to] for name, to in links.items() if to in words}, found


def interpreter(version: str) -> Component:
    """The interpreter that the official images bring, compiled from its source."""
    return {
        "type": "platform",
        "bom-ref": f"cpython@{version}",
        "name": "cpython",
        "version": version,
        "purl": f"pkg:generic/cpython@{version}",
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }


def locked(lock: Path) -> dict[str, str]:
    """What the image was made from: name → version."""
    text = lock.read_text(encoding="utf-8")
    return {bare(name): version for name, version in re.findall(r"^([\w.-]+)==([^ ;]+)", text, re.MULTILINE)}


def debian(document: dict[str, Any], words: dict[str, str]) -> tuple[list[Component], list[dict[str, Any]]]:
    """The installed packages with their licences, which the tool puts beside their sources."""
    all_ = {one["bom-ref"]: one for one in document["components"]}
    depends = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    installed = {ref: one for ref, one in all_.items() if "arch=source" not in one.get("purl", "arch=source")}
    for ref, one in installed.items():
        said = [all_[to].get("licenses") for to in depends.get(ref, []) if to in all_ and to not in installed]
        one["licenses"] = next(filter(None, said), None) or in_words(one["name"], words.get(one["name"], ""))
    wanted = [
        {"ref": ref, "dependsOn": sorted(set(depends.get(ref, [])) & installed.keys())} for ref in installed
    ]
    return list(installed.values()), wanted


def in_words(package: str, text: str) -> list[dict[str, Any]]:
    """The licences that a text speaks of; where it names none, the text itself."""
    names = sorted({one or other for one, other in IN_WORDS.findall(text)})
    return [
        {"license": {"name": name}} for name in names or [f"as in /usr/share/doc/{package}/copyright"] if text
    ]


def merge(first: Path, second: Path, image: Path, lock: Path, to: Path) -> None:
    """Write one document, or say what is missing."""
    document = json.loads(first.read_text(encoding="utf-8"))
    words, base = read(image)
    packages, wanted = debian(json.loads(second.read_text(encoding="utf-8")), words)
    ours = document["components"]
    known = locked(lock) | {"pip": "*"}
    strangers = [one["name"] for one in ours if known.get(bare(one["name"])) not in {one["version"], "*"}]
    if strangers:
        sys.exit(f"holdfast: not of {lock}, or another version: {', '.join(strangers)}")
    for one in ours:
        if not one.get("licenses") and bare(one["name"]) in UNNAMED:
            one["licenses"] = [{"license": {"id": UNNAMED[bare(one["name"])]}}]
    everything = [*ours, *packages, *([base] if base else [])]
    silent = sorted(one["name"] for one in everything if not one.get("licenses"))
    if silent:
        sys.exit(f"holdfast: nothing is said of the licence of {', '.join(silent)}")
    root = document["metadata"]["component"]
    root["type"] = "container"
    needed = {ref for one in wanted for ref in one["dependsOn"]}
    roots = [one["bom-ref"] for one in everything[len(ours) :] if one["bom-ref"] not in needed]
    for one in document["dependencies"]:
        if one["ref"] == root["bom-ref"]:
            one["dependsOn"] = sorted([*one.get("dependsOn", []), *roots])
    document["components"] = sorted(everything, key=lambda one: one["bom-ref"])
    document["dependencies"] = sorted([*document["dependencies"], *wanted], key=lambda one: one["ref"])
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong:
        sys.exit(f"holdfast: not CycloneDX: {wrong}")
    to.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    {"collect": collect, "merge": merge}[sys.argv[1]](*map(Path, sys.argv[2:]))
