"""Owns where an import goes: the stack that runs here, or the one that is named."""

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec

from app.dev.stack import status
from app.dev.stack.errors import UNAVAILABLE, USAGE, StackError
from app.dev.stack.folder import DataFolder

URL_VARIABLE: Final = "HOLDFAST_URL"
KEY_VARIABLE: Final = "HOLDFAST_API_KEY"


class Target(msgspec.Struct, frozen=True):
    """A gateway and a key for it. `sandbox` is the payment provider's address, where it is ours to ask."""

    url: str
    api_key: str
    sandbox: str | None = None


def find(data_dir: Path, url: str | None, api_key: str | None) -> Target:
    """The named gateway, else the one that runs in the data folder. Raises StackError."""
    url = url or os.environ.get(URL_VARIABLE)
    api_key = api_key or os.environ.get(KEY_VARIABLE)
    if url and api_key:
        return Target(url.rstrip("/"), api_key)
    if url:
        raise StackError(f"--url needs --api-key (or {KEY_VARIABLE}).", USAGE)
    folder = DataFolder(data_dir)
    found = asyncio.run(status.snapshot(folder))
    if found["state"] == status.STOPPED or not found["gateway"]["url"] or not found["api_key"]:
        raise StackError(
            f"No stack runs in {data_dir}. Start one with: holdfast up --detach{folder.option}, "
            "or name one with --url.",
            UNAVAILABLE,
        )
    return Target(found["gateway"]["url"], api_key or found["api_key"], found["sandbox"]["url"])
