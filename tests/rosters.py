"""Logs with named keys: every key is derived from its name, so a test reads like a story and repeats exactly."""

import hashlib
from typing import Any

from claudemesh.crypto.primitives import BoxKey, SigningKey, box_key, signing_key
from claudemesh.protocol.limits import DAY_MS
from claudemesh.protocol.roster import Checked, Entry, Roster, sign_entry
from claudemesh.types import UnixMillis

START = UnixMillis(1_800_000_000_000)


def key(name: str) -> SigningKey:
    """The Ed25519 pair that goes by `name`."""
    return signing_key(hashlib.sha256(b"sign " + name.encode()).digest())


def box(name: str) -> BoxKey:
    """The X25519 pair that goes by `name`."""
    return box_key(hashlib.sha256(b"box " + name.encode()).digest())


def keys_of(peer: str, user: str | None = None) -> dict[str, str]:
    """The `m` field of a peer; its user is called `PEER's user` unless named."""
    return {"sign": key(peer).public, "box": box(peer).public, "user": key(user or user_of(peer)).public}


def user_of(peer: str) -> str:
    return f"{peer}'s user"


def channel(name: str) -> str:
    """The id of the channel called `name`."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Log:
    """A roster, and its entries as they would be stored."""

    def __init__(self, owner: str = "alice", **genesis: Any) -> None:
        self.roster = Roster()
        self.entries: list[Entry] = []
        self.now = START
        self.append("genesis", owner, m=keys_of(owner), bk=key("broker").public, nonce="00" * 16, **genesis)

    def draft(self, op: str, by: str, *cosigners: str, at: int | None = None, **fields: Any) -> Entry:
        """An entry that follows the head, signed by `by` and `cosigners`, whether or not the rules allow it."""
        when = UnixMillis(self.now if at is None else at)
        body = self.roster.next_body(op, when, by=key(by).public, **fields)
        return sign_entry(body, key(by), *(key(name) for name in cosigners))

    def append(self, op: str, by: str, *cosigners: str, at: int | None = None, **fields: Any) -> Checked:
        entry = self.draft(op, by, *cosigners, at=at, **fields)
        checked = self.roster.apply(entry, self.now)
        self.entries.append(entry)
        return checked

    def invite_fields(self, invite: str, **changes: Any) -> dict[str, Any]:
        fields = {"inv": key(invite).public, "role": "member", "uses": 1, "exp": self.now + DAY_MS}
        return fields | changes

    def invite(self, by: str, invite: str, **changes: Any) -> Checked:
        return self.append("invite", by, invite, **self.invite_fields(invite, **changes))

    def device_link(self, by: str, invite: str, user: str | None = None, **changes: Any) -> Checked:
        return self.invite(by, invite, user=key(user or user_of(by)).public, **changes)

    def admit(self, invite: str, peer: str, user: str | None = None) -> Checked:
        """Admit `peer`; as a further device of `user` when named, which then need not sign."""
        if user is not None:
            return self.append("admit", invite, peer, m=keys_of(peer, user))
        return self.append("admit", invite, peer, user_of(peer), m=keys_of(peer))

    def with_member(self, peer: str, by: str = "alice", role: str = "member") -> "Log":
        """Admit `peer` through an invite of its own."""
        self.invite(by, f"{peer}'s invite", role=role)
        self.admit(f"{peer}'s invite", peer)
        return self

    def is_active(self, peer: str) -> bool:
        return self.roster.is_active(key(peer).public)


def family() -> Log:
    """Alice owns the mesh, Adam is an admin, Bob and Carol are members."""
    log = Log().with_member("bob").with_member("carol")
    return log.with_member("adam", role="admin")
