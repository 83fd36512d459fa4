"""A mesh to load: its members' keys, its log, and ready-made `send` frames."""

import hashlib
import os
import time
from dataclasses import dataclass, field
from typing import Any

from claudemesh.crypto import identity, statements
from claudemesh.crypto.identity import SessionKeys
from claudemesh.crypto.invite import InviteLink
from claudemesh.crypto.primitives import SigningKey, box_key, signing_key
from claudemesh.crypto.statements import Statement
from claudemesh.protocol import codec, limits
from claudemesh.protocol.messages import Send
from claudemesh.protocol.roster import Entry, Roster, sign_entry
from claudemesh.types import MeshId, PeerId, UnixMillis
from tests.bench.raw_link import client_frame

LINK_SEED = b"bench link seed."
"""Secret of the link that the last entry of every mesh makes valid."""

CIPHERTEXT_BYTES = 1_296
"""A message of up to about 500 bytes: the padding floor and the authenticator."""


def now_ms() -> UnixMillis:
    return UnixMillis(time.time_ns() // 1_000_000)


def key(name: str) -> SigningKey:
    return signing_key(hashlib.sha256(b"bench " + name.encode()).digest())


@dataclass(slots=True)
class Speaker:
    """One session of one member: what dialling and sending as it takes."""

    member: SigningKey
    session: SessionKeys
    attestation: Statement
    attestation_digest: str

    @property
    def peer(self) -> PeerId:
        return PeerId(self.member.public)


@dataclass(slots=True)
class BenchMesh:
    """A mesh of one owner and the members that one invite admitted, founded a minute ago."""

    broker: str
    members: list[SigningKey] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    roster: Roster = field(default_factory=Roster)

    @property
    def id(self) -> MeshId:
        assert self.roster.mesh is not None
        return self.roster.mesh

    def link(self, url: str) -> str:
        """A link of which 1,000 uses are left."""
        return _link(url, self.id).text()

    def draft_admission(self, name: str) -> Entry:
        """The entry that admits one more peer by the link; it follows the roster and is not applied."""
        at, box = now_ms(), box_key(hashlib.sha256(f"bench box {name}".encode()).digest())
        invite = _link("ws://bench/ws", self.id).invite_key()
        sign, user = key(f"member {name}"), key(f"user {name}")
        keys = {"sign": sign.public, "box": box.public, "user": user.public}
        return sign_entry(self.roster.next_body("admit", at, by=invite.public, m=keys), invite, sign, user)

    def speaker(self, index: int, session: int = 0) -> Speaker:
        """The session numbered `session` of member `index`."""
        member = self.members[index]
        seed = hashlib.sha512(f"session {index} {session}".encode()).digest()
        keys = identity.session_keys(seed)
        attestation = identity.attest(
            member, self.id, keys, UnixMillis(now_ms() - 1_000), limits.ATTESTATION_DEFAULT_MS
        )
        return Speaker(member, keys, attestation, statements.statement_digest(attestation, "att"))


def found(broker: str, members: int) -> BenchMesh:
    """Build the log of a mesh of `members` peers that names `broker` (64 hex digits); the last entry is an invite."""
    mesh = BenchMesh(broker)
    at = UnixMillis(now_ms() - limits.MINUTE_MS)
    owner = key("member 0")
    mesh.members.append(owner)
    _append(mesh, at, "genesis", owner, m=_keys(0), bk=broker, nonce=os.urandom(16).hex())
    invite, left = key("invite"), 0
    for index in range(1, members):
        if left == 0:
            left = limits.INVITE_USES_MAX
            invite = key(f"invite {index}")
            fields = {"inv": invite.public, "role": "member", "uses": left, "exp": at + limits.DAY_MS}
            _append(mesh, at, "invite", owner, invite, **fields)
        left -= 1
        member = key(f"member {index}")
        mesh.members.append(member)
        _append(mesh, at, "admit", invite, member, key(f"user {index}"), m=_keys(index))
    last = _link("ws://bench/ws", mesh.id).invite_key()
    uses = limits.INVITE_USES_MAX
    _append(mesh, at, "invite", owner, last, inv=last.public, role="member", uses=uses, exp=at + limits.DAY_MS)
    return mesh


def send_frames(mesh: BenchMesh, sender: Speaker, recipients: list[PeerId]) -> list[tuple[str, bytes]]:
    """One built frame to each of `recipients`, and its message id."""
    nonces = os.urandom(24 * len(recipients))
    ciphertext = statements.to_base64url(os.urandom(CIPHERTEXT_BYTES))
    frames = []
    for at, to in enumerate(recipients):
        message = Send(
            k="dm",
            mesh=mesh.id,
            sender=sender.peer,
            to=to,
            kid=sender.session.box.public,
            id=os.urandom(16).hex(),
            prio="next",
            rs=mesh.roster.seq,
            att=sender.attestation_digest,
            nonce=statements.to_base64url(nonces[24 * at : 24 * at + 24]),
            ct=ciphertext,
        )
        frames.append((message.id, client_frame(codec.encode_message(message))))
    return frames


def _link(url: str, mesh: MeshId) -> InviteLink:
    return InviteLink(url, mesh[:32], LINK_SEED)


def _keys(index: int) -> dict[str, str]:
    box = box_key(hashlib.sha256(f"bench box {index}".encode()).digest())
    return {"sign": key(f"member {index}").public, "box": box.public, "user": key(f"user {index}").public}


def _append(mesh: BenchMesh, at: UnixMillis, op: str, *signers: SigningKey, **fields: Any) -> None:
    entry = sign_entry(mesh.roster.next_body(op, at, by=signers[0].public, **fields), *signers)
    mesh.roster.apply(entry, at)
    mesh.entries.append(entry)
