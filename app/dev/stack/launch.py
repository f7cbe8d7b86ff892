"""Owns the last steps of a child before it becomes a server: whose rights it has, whose death it follows.

It is run as a script by `python -I -S`, and replaces itself by the program after `--`, so the pid stays.
Guarantees: the program starts with exactly the asked identity, or this exits 125 or 126 and says why.
If the process dies here, nothing was started.

A script of its own and no `preexec_fn`, because a user namespace can only be entered by a process with one
thread and because Python code between fork and exec of a threaded parent may deadlock.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path

NOT_WRITABLE = 125
CANNOT = 126
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def enter_namespace(name: int) -> None:
    """Enter a user namespace where this user (root) is called `name`; it still owns what it owns outside."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are not allowed here")
    for file_name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{name} {uid} 1"),
        ("gid_map", f"{name} {gid} 1"),
    ):
        Path(f"/proc/self/{file_name}").write_text(text, "ascii")


def become(user: str) -> None:
    """Give up root for good and be UID:GID, in no other group."""
    uid, gid = (int(part) for part in user.split(":"))
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def follow_parent(parent: int, signal_number: int) -> None:
    """Have the kernel send `signal_number` to this process when `parent` dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise OSError(0, "the process that wanted this one died meanwhile")


def main() -> None:
    """Change identity as asked, then become the program."""
    parser = argparse.ArgumentParser(prog="launch")
    parser.add_argument("--namespace", metavar="UID", type=int)
    parser.add_argument("--user", metavar="UID:GID")
    parser.add_argument("--follow", metavar="PID:SIGNAL")
    parser.add_argument(
        "--writable", metavar="DIR", help="refuse when DIR cannot be written with these rights"
    )
    parser.add_argument("program", nargs="+")
    arguments = parser.parse_args()
    try:
        if arguments.namespace is not None:
            enter_namespace(arguments.namespace)
        elif arguments.user:
            become(arguments.user)
        if arguments.follow:  # after the change of identity, which clears it
            parent, number = arguments.follow.split(":")
            follow_parent(int(parent), int(number))
        if arguments.writable and not os.access(arguments.writable, os.W_OK | os.X_OK):
            print(f"launch: {arguments.writable} cannot be written with these rights", file=sys.stderr)
            sys.exit(NOT_WRITABLE)
        os.execv(arguments.program[0], arguments.program)
    except OSError as error:
        print(f"launch: {error.strerror or error}", file=sys.stderr)
        sys.exit(CANNOT)


if __name__ == "__main__":
    main()
