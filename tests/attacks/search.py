"""Searching bytes for what must not be in them, in every spelling in which it could be there."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 64 << 10
"""A core dump is mostly blocks of zeroes, in which nothing can be."""
CHUNK_BYTES: Final = 64 << 20


def spellings(needle: bytes) -> list[bytes]:
    """The needle raw, in hex of both cases, in base64 of both alphabets at every alignment, and escaped in JSON."""
    found = [needle, needle.hex().encode(), needle.hex().upper().encode()]
    for shift in range(3):
        # Characters that also depend on the neighbours of the needle are cut off.
        encoded = base64.b64encode(b"\0" * shift + needle)
        aligned = encoded[(0, 2, 3)[shift] : (len(needle) + shift) // 3 * 4]
        found += [aligned, aligned.translate(bytes.maketrans(b"+/", b"-_"))]
    try:
        text = needle.decode()
    except UnicodeDecodeError:
        pass
    else:
        found += [json.dumps(text)[1:-1].encode(), text.encode("utf-16-le"), text.encode("utf-32-le")]
    return [spelling for spelling in dict.fromkeys(found) if len(spelling) >= 6]


def search_bytes(haystack: bytes, needles: Mapping[str, bytes]) -> set[str]:
    """The names of the needles that are in `haystack`."""
    return {name for name, needle in needles.items() if any(one in haystack for one in spellings(needle))}


def search_file(path: Path, needles: Mapping[str, bytes]) -> set[str]:
    """The names of the needles that are in a file of any size."""
    sought = {name: spellings(needle) for name, needle in needles.items()}
    longest = max(len(one) for ones in sought.values() for one in ones)
    found: set[str] = set()
    for chunk in _chunks(path, longest):
        found |= {name for name, ones in sought.items() if name not in found and any(one in chunk for one in ones)}
    return found


def search_files(paths: Iterable[Path], needles: Mapping[str, bytes]) -> dict[str, set[str]]:
    """For each file in which something was found, the names of it."""
    return {path.name: found for path in paths if (found := search_file(path, needles))}


def _chunks(path: Path, overlap: int) -> Iterator[bytes]:
    """The file in pieces that overlap, so that nothing hides on a seam; without the blocks of zeroes between them."""
    with path.open("rb") as file:
        piece, size = [b""], 0
        while block := file.read(BLOCK_BYTES):
            if block.count(0) != len(block):
                piece.append(block)
                size += len(block)
            if size >= CHUNK_BYTES:
                joined = b"".join(piece)
                yield joined
                piece, size = [joined[-overlap:]], 0
        yield b"".join(piece)
