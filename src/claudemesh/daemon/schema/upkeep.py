"""Backups and the doctor."""

from typing import Annotated

import msgspec

from claudemesh.daemon.schema.base import Answer, Args, Path


class BackupArgs(Args, frozen=True, kw_only=True):
    """Write an encrypted copy of the keys to `path`, which must not exist."""

    path: Path
    """Absolute path of the file."""
    passphrase: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
    """What encrypts it."""


class BackedUp(Answer, frozen=True, kw_only=True):
    """The file holds the keys of these meshes; no messages."""

    path: str
    """The file."""
    meshes: list[str]
    """Their aliases."""


class RestoreArgs(Args, frozen=True, kw_only=True):
    """Replace the configuration by the one in the backup."""

    path: Path
    """Absolute path of the file."""
    passphrase: Annotated[str, msgspec.Meta(max_length=1_024)]
    """What it was encrypted under."""
    force: bool = False
    """Replace keys that are here."""


class Restored(Answer, frozen=True, kw_only=True):
    """The keys of these meshes are in use."""

    meshes: list[str]
    """Their aliases."""
    replaced: bool
    """Whether there were keys before."""


class Check(Answer, frozen=True, kw_only=True):
    """One thing that was looked at. `exit_code` is the class of the failure, 0 when there is none."""

    name: str
    """What was looked at."""
    mesh: str
    """In which mesh; empty for this machine."""
    ok: bool
    """Whether it is as it should be."""
    detail: str
    """What was found."""
    remedy: str
    """What to do; empty when nothing."""
    exit_code: int
    """Class of the failure; 0 when there is none."""


class Checks(Answer, frozen=True, kw_only=True):
    """Everything that was looked at."""

    ok: bool
    """Whether every check is."""
    checks: list[Check]
    """In the order in which they were made."""
