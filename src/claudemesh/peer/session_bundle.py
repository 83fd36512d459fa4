"""A session in a file: what a container or CI job needs to speak within its capabilities (docs/spec/storage.md §3).

It holds the session's keys and the peer's word for them, never a key of the peer: whoever has the file can send what
the capabilities allow until it expires or is ended, and can change nothing of the roster. The counters are in it, too;
a copy that is used beside the original repeats them, and is refused as a replay.
"""

import os
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

from claudemesh.crypto import identity, primitives
from claudemesh.crypto.identity import CAPABILITIES, Attestation, SessionKeys
from claudemesh.crypto.statements import Statement
from claudemesh.errors import ClaudemeshError, LocalError, UsageError
from claudemesh.peer.config import BrokerAddress, Key, Label, LogPin, Secret
from claudemesh.peer.keystore import read_private, take_lock, write_private
from claudemesh.protocol.message_rules import PEER_CAPABILITY

FORMAT: Final = "claudemesh-session"
LOCK_SUFFIX: Final = ".lock"
GRANTABLE: Final = tuple(cap for cap in CAPABILITIES if cap != PEER_CAPABILITY)
"""Capabilities that a session may be handed out with; what speaks for the whole peer is not among them."""

Name = Annotated[str, msgspec.Meta(max_length=128)]


class KnownName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a peer was called when the session was handed out."""

    member: Key
    name: Label
    device: Label


class KeptEpoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An epoch that the session made: its record, its secret, and when."""

    st: Statement
    secret: Secret
    at: int

    def __repr__(self) -> str:
        return "KeptEpoch(…)"


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of the file."""

    format: str = FORMAT
    v: int = 1
    mesh: Key
    alias: Label
    member: Key
    """The peer that the session speaks for."""
    label: Label
    sign_sk: Secret
    box_sk: Secret
    attestation: Statement
    card: int
    """Number of the peer's card, as messages name it."""
    broker: BrokerAddress
    log: LogPin
    names: list[KnownName]
    channels: dict[Name, str]
    """Ids of the channels that the peer is in, by address."""
    sent: dict[str, int] = {}
    """The last counter of each stream, by the key of the peer or the id of the channel."""
    epochs: list[KeptEpoch] = []

    def keys(self) -> SessionKeys:
        """The session's keys."""
        return SessionKeys(
            primitives.signing_key(bytes.fromhex(self.sign_sk)), primitives.box_key_of(bytes.fromhex(self.box_sk))
        )

    def open_attestation(self) -> Attestation:
        """The peer's word for the session; raises as `identity.open_attestation`."""
        return identity.open_attestation(self.attestation)

    def __repr__(self) -> str:
        return f"Bundle({self.label!r} of {self.member[:8]}…)"


_decoder = msgspec.json.Decoder(Bundle)


class BundleFile:
    """A bundle on disk, held by one process at a time."""

    def __init__(self, path: Path, bundle: Bundle, lock: int) -> None:
        self.path = path
        self.bundle = bundle
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Lock and read a bundle.

        Raises:
            LocalError: `config_mode`, `session_file` or `config_locked`; a directory that cannot be written is
                `config_mode`, since the counters have to be kept with the keys.
        """
        lock = take_lock(path.with_name(path.name + LOCK_SUFFIX))
        try:
            return cls(path, read_bundle(read_private(path)), lock)
        except BaseException:
            os.close(lock)
            raise

    def save(self, bundle: Bundle) -> None:
        """Replace the file, whole or not at all; durable when this returns."""
        write_private(self.path, write_bundle(bundle))
        self.bundle = bundle

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_bundle(raw: bytes) -> Bundle:
    """Read a bundle, or raise `LocalError` (`session_file`) when its parts do not belong together."""
    try:
        bundle = _decoder.decode(raw)
        attestation = bundle.open_attestation()
        keys = bundle.keys()
        belongs = (attestation.session, attestation.box) == (keys.id, keys.box.public)
        if bundle.format != FORMAT or bundle.v != 1 or not belongs:
            raise ValueError("its keys are not those that its peer vouched for")
        if (attestation.mesh, attestation.member) != (bundle.mesh, bundle.member):
            raise ValueError("it is of another peer than it says")
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, ClaudemeshError) as error:
        raise LocalError("session_file", str(error)) from None
    return bundle


def write_bundle(bundle: Bundle) -> bytes:
    """The file's bytes."""
    return msgspec.json.format(msgspec.json.encode(bundle), indent=1) + b"\n"


def require_capabilities(capabilities: tuple[str, ...]) -> tuple[str, ...]:
    """Capabilities as a person named them; raises `UsageError` for none, and for what cannot be handed out."""
    wanted = tuple(sorted(set(capabilities)))
    if not wanted or not set(wanted) <= set(GRANTABLE):
        raise UsageError("usage", f"a session may have some of {', '.join(GRANTABLE)}")
    return wanted
