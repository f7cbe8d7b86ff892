"""Cuts symbols and debugging information off compiled modules: `strip.py FOLDER`, inside the image's build.

What a module needs while it runs lies in its segments; behind the last of them is only what debuggers and
linkers read, the table of sections with it. A base has no `strip`, and this gives the same bytes everywhere.
Files that are no ELF of 64 bits, least byte first, are left alone.
"""

import struct
import sys
from pathlib import Path

ELF = b"\x7fELF\x02\x01"
HEADER = struct.Struct("<32xQQ4x6H")
"""Where segments and sections are listed, and sizes: of the header, of a segment, how many; the rest."""
SEGMENT = struct.Struct("<8xQ16xQ16x")
"""Where it begins in the file, and how much of the file it is."""


def stripped(content: bytes) -> bytes:
    """The module without what is behind its segments; the same bytes where that is nothing."""
    if not content.startswith(ELF) or len(content) < HEADER.size:
        return content
    segments, sections, header, each, count = HEADER.unpack_from(content)[:5]
    end = max(header, segments + each * count)
    for number in range(count):
        begin, length = SEGMENT.unpack_from(content, segments + number * each)
        end = max(end, begin + length)
    if not sections or end >= len(content):
        return content
    kept = bytearray(content[:end])
    struct.pack_into("<Q", kept, 40, 0)  # no table of sections,
    struct.pack_into("<HHH", kept, 58, 0, 0, 0)  # nor anything in it
    return bytes(kept)


def main(folder: Path) -> None:
    """Strip every module in the folder, in place."""
    for file in sorted(folder.rglob("*.so*")):
        if file.is_file() and not file.is_symlink():
            before = file.read_bytes()
            after = stripped(before)
            if after != before:
                file.write_bytes(after)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
