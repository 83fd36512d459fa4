"""A link as a QR code, on the terminal or in a file that only its owner can read."""

import io
import os
import sys
from pathlib import Path

from claudemesh.cli.verb import Verb
from claudemesh.errors import UsageError

_SCALE = 8


def check_qr_target(target: str) -> None:
    """Refuse a target before a link is made for it.

    Raises:
        UsageError: It is not a .png or .svg file, or it exists: no file is overwritten.
    """
    if target in ("", "-"):
        return
    if _kind(target) not in ("png", "svg"):
        raise UsageError("usage", "a QR code is written to a file that ends in .png or .svg")
    if Path(target).exists():
        raise UsageError("usage", f"{target} exists; nothing is overwritten")


def show_qr(link: str, target: str, verb: Verb) -> None:
    """Draw `link`.

    Args:
        target: Empty for nothing, `-` for the terminal, else a file ending in .png or .svg.
    """
    if not target:
        return
    import segno

    code = segno.make(link, error="m", micro=False)
    if target == "-":
        code.terminal(out=sys.stderr if verb.as_json else sys.stdout, compact=True)
        return
    path = Path(target)
    drawn = io.BytesIO()
    code.save(drawn, kind=_kind(target), scale=_SCALE)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(drawn.getvalue())
    verb.progress(f"the QR code is in {path}; it is as secret as the link")


def _kind(target: str) -> str:
    return Path(target).suffix.lstrip(".").lower()
