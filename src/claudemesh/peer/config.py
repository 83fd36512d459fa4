"""The layout of config.json: a user's identity and, for each mesh, this peer's keys (docs/spec/storage.md §1).

Secrets are hex; no `repr` shows them.
"""

from typing import Annotated

import msgspec

from claudemesh.crypto import primitives
from claudemesh.crypto.primitives import BoxKey, SigningKey
from claudemesh.errors import LocalError, UsageError
from claudemesh.types import BoxId, BrokerId, MeshId, PeerId, UnixMillis, UserId

Secret = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
Label = Annotated[str, msgspec.Meta(max_length=40)]


class UserKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A user identity. Without `user_sk` this device was linked: another device of the user holds it."""

    user: Key
    user_sk: Secret | None = None

    def key(self) -> SigningKey:
        """The pair that signs for the user, or raise `UsageError` where this device does not hold it."""
        if self.user_sk is None:
            raise UsageError("usage", "the key of this user is on the device that linked this one")
        return primitives.signing_key(bytes.fromhex(self.user_sk))

    def __repr__(self) -> str:
        return f"UserKeys(user={self.user[:8]}…)"


class BoxSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The box key of card number `cs`, in use since `since`."""

    cs: Annotated[int, msgspec.Meta(ge=0)]
    box: Key
    box_sk: Secret
    since: UnixMillis

    def key(self) -> BoxKey:
        return BoxKey(self.box, bytes.fromhex(self.box_sk))

    def __repr__(self) -> str:
        return f"BoxSecret(cs={self.cs}, box={self.box[:8]}…)"


class PeerKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This peer's signing key and box keys, the newest first."""

    sign: Key
    sign_sk: Secret
    boxes: Annotated[list[BoxSecret], msgspec.Meta(min_length=1)]

    def key(self) -> SigningKey:
        return primitives.signing_key(bytes.fromhex(self.sign_sk))

    def __repr__(self) -> str:
        return f"PeerKeys(sign={self.sign[:8]}…)"


class BrokerAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the mesh's broker answers, and its key as last seen in the roster."""

    url: str
    bk: Key


class LogPin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far this peer's roster went: a journal or a broker that says otherwise is wrong."""

    seq: Annotated[int, msgspec.Meta(ge=0)]
    head: Key


class MeshKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything of one mesh that cannot be fetched again."""

    mesh: Key
    alias: Label
    broker: BrokerAddress
    peer: PeerKeys
    log: LogPin
    name: Label = ""
    device: Label = ""
    user: UserKeys | None = None
    """The identity in this mesh, where it is not the one of the whole configuration."""
    inviter: Label = ""
    """What the link called whoever issued it, until that peer has said so itself."""
    recovery: str | None = None
    """Public recovery key of a mesh that was created here."""
    joining: bool = False
    """Written before the admission was appended; the roster tells whether it was."""

    @property
    def id(self) -> MeshId:
        return MeshId(self.mesh)

    @property
    def member(self) -> PeerId:
        return PeerId(self.peer.sign)

    @property
    def broker_id(self) -> BrokerId:
        return BrokerId(self.broker.bk)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole file."""

    identity: UserKeys | None = None
    meshes: list[MeshKeys] = []
    name: Label = ""
    device: Label = ""
    v: int = 1


_decoder = msgspec.json.Decoder(Config)


def read_config(raw: bytes) -> Config:
    """Read config.json, or raise `LocalError` (`config_damaged`): secrets are never guessed or repaired."""
    try:
        config = _decoder.decode(raw)
        _check_keys(config)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        # The validation message names a field and a type, never a value.
        raise LocalError("config_damaged", f"config.json: {error}") from None
    if config.v != 1:
        raise LocalError("config_damaged", "config.json is of a newer version: upgrade claudemesh")
    return config


def write_config(config: Config) -> bytes:
    """The file's bytes, readable for a person."""
    return msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n"


def make_user(entropy: bytes) -> UserKeys:
    """A new identity from 32 random bytes."""
    return UserKeys(UserId(primitives.signing_key(entropy).public), entropy.hex())


def make_box(number: int, entropy: bytes, since: UnixMillis) -> BoxSecret:
    """A new box key for card `number` from 32 random bytes."""
    key = primitives.box_key(entropy)
    return BoxSecret(number, BoxId(key.public), key.secret.hex(), since)


def make_peer(entropy: bytes, since: UnixMillis) -> PeerKeys:
    """A new peer from 64 random bytes: its signing key and the box key of its first card."""
    return PeerKeys(
        PeerId(primitives.signing_key(entropy[:32]).public), entropy[:32].hex(), [make_box(1, entropy[32:64], since)]
    )


def _check_keys(config: Config) -> None:
    """Each secret belongs to its public key: a file edited or mixed up by hand is refused, not half believed."""
    users = [one for one in (config.identity, *(mesh.user for mesh in config.meshes)) if one is not None]
    for user in users:
        if user.user_sk is not None and primitives.signing_key(bytes.fromhex(user.user_sk)).public != user.user:
            raise ValueError("a user secret does not belong to its key")
    for mesh in config.meshes:
        if mesh.peer.key().public != mesh.peer.sign:
            raise ValueError("a peer secret does not belong to its key")
        for box in mesh.peer.boxes:
            if primitives.box_key_of(bytes.fromhex(box.box_sk)).public != box.box:
                raise ValueError("a box secret does not belong to its key")
