"""Arguments, events and answers of every operation; what `--json` prints (docs/spec/ipc.md §5; a test compares them).

Times are Unix milliseconds and 0 when there is none; keys are lowercase hex. Fields are only ever added.
"""

from typing import Annotated, Any, Literal

import msgspec

from claudemesh.types import Priority

Name = Annotated[str, msgspec.Meta(max_length=256)]
Path = Annotated[str, msgspec.Meta(max_length=4_096)]
Text = Annotated[str, msgspec.Meta(max_length=512 << 10)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Ids = Annotated[list[Name], msgspec.Meta(max_length=1_000)]
WaitStage = Literal["accepted", "delivered", "read", "replied"]


class Args(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of arguments. A field that is not known is refused: a misspelt option must not be ignored."""


class InMesh(Args, frozen=True, kw_only=True):
    """Arguments of an operation in one mesh: `mesh` is an alias or a mesh id's beginning, empty when there is one."""

    mesh: Name = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of answers, events and what they hold."""


# Daemon


class NoArgs(Args, frozen=True, kw_only=True):
    """No arguments."""


class Done(Answer, frozen=True, kw_only=True):
    """It took effect; there is no more to say."""


class DaemonStatus(Answer, frozen=True, kw_only=True):
    """The daemon that answered."""

    running: bool
    pid: int
    version: str
    config_dir: str
    socket: str
    started_at: int
    local_broker: str
    """The embedded broker's URL; empty when `up` was never used."""
    meshes: list["MeshSummary"]


class UpArgs(Args, frozen=True, kw_only=True):
    """`name` and `device` are used when the mesh `local` does not exist yet."""

    name: Name = ""
    device: Name = ""


class Up(Answer, frozen=True, kw_only=True):
    """The embedded broker runs and the mesh `local` exists."""

    broker_url: str
    created: bool
    mesh: "MeshSummary"


# Meshes


class MeshSummary(Answer, frozen=True, kw_only=True):
    """One mesh that this daemon is a peer of."""

    alias: str
    id: str
    address: str
    """This peer's address in the mesh."""
    role: str
    broker_url: str
    members: int
    link: Literal["open", "connecting", "closed"]
    link_problem: str
    """Code of the last failure to reach the broker; empty when the link is open."""
    frozen: bool
    queued: int
    unread: int


class MeshCreateArgs(Args, frozen=True, kw_only=True):
    """Found a mesh on a broker."""

    alias: Name
    broker_url: Path
    name: Name = ""
    device: Name = ""


class MeshCreated(Answer, frozen=True, kw_only=True):
    """The mesh exists at its broker. `recovery_words` are shown once and stored nowhere."""

    mesh: MeshSummary
    recovery_words: str


class MeshList(Answer, frozen=True, kw_only=True):
    """Every mesh."""

    meshes: list[MeshSummary]


class MeshDetail(Answer, frozen=True, kw_only=True):
    """One mesh with the state of its roster."""

    mesh: MeshSummary
    peer: str
    user: str
    broker_key: str
    seq: int
    head: str
    head_number: str
    """The head as digits to compare by voice."""
    signed_at: int
    """When the broker last signed this head."""
    conflict: dict[str, Any]
    """The proof against the broker when the mesh is frozen; empty otherwise."""


class MeshMoveArgs(InMesh, frozen=True, kw_only=True):
    """Re-home a mesh; needs the owner."""

    broker_url: Path


class MeshMoved(Answer, frozen=True, kw_only=True):
    """The new broker serves the mesh with its whole log."""

    mesh: MeshSummary
    from_url: str


class MeshLeaveArgs(InMesh, frozen=True, kw_only=True):
    """Leave; the mesh must be named."""

    forget: bool = False
    """Delete the local keys even when the broker cannot be told now."""


class MeshLeft(Answer, frozen=True, kw_only=True):
    """`revoked`: the roster says so; otherwise only this machine forgot its keys."""

    alias: str
    id: str
    revoked: bool


# Invites


class InviteCreateArgs(InMesh, frozen=True, kw_only=True):
    """Issue an invite link."""

    uses: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    expires_in_ms: Millis = 7 * 86_400_000
    person: Name = ""
    """Make a personal link: whoever uses it joins as this person."""


class InviteCreated(Answer, frozen=True, kw_only=True):
    """`link` is a secret: whoever has it can join."""

    mesh: str
    id: str
    link: str
    uses: int
    expires_at: int


class Invite(Answer, frozen=True, kw_only=True):
    """One invite of the roster; its link is known only to whoever made it."""

    id: str
    kind: Literal["open", "personal", "device"]
    role: str
    uses: int
    used: int
    expires_at: int
    state: str
    issuer: str


class InviteList(Answer, frozen=True, kw_only=True):
    """Every invite of the mesh."""

    mesh: str
    invites: list[Invite]


class InviteRevokeArgs(InMesh, frozen=True, kw_only=True):
    """`invite` is an id or its beginning, 8 digits or more."""

    invite: Name


class InviteRevoked(Answer, frozen=True, kw_only=True):
    """The link is dead for every verifier."""

    mesh: str
    id: str


class JoinArgs(Args, frozen=True, kw_only=True):
    """Join by a link. `alias` defaults to the name in the link."""

    link: Annotated[str, msgspec.Meta(max_length=8_192)]
    name: Name = ""
    device: Name = ""
    alias: Name = ""


class Joined(Answer, frozen=True, kw_only=True):
    """This machine is a peer of the mesh."""

    mesh: MeshSummary


# Peers


class Session(Answer, frozen=True, kw_only=True):
    """A session that is connected now, as the broker says."""

    label: str
    key: str
    status: str
    since: int


class Peer(Answer, frozen=True, kw_only=True):
    """One peer of the roster."""

    address: str
    key: str
    user: str
    device: str
    role: str
    trust: Literal["this device", "own device", "pinned", "unknown"]
    online: bool
    last_seen_at: int
    sessions: list[Session]


class PeerList(Answer, frozen=True, kw_only=True):
    """Every active peer. `presence` is false when the broker could not be asked who is online."""

    mesh: str
    presence: bool
    peers: list[Peer]


class Identity(Answer, frozen=True, kw_only=True):
    """Who this machine is in one mesh."""

    mesh: str
    mesh_id: str
    address: str
    user: str
    user_key: str
    device: str
    peer: str
    role: str


class WhoAmI(Answer, frozen=True, kw_only=True):
    """Who this machine is, in every mesh or in the one named."""

    identities: list[Identity]


class VerifyArgs(InMesh, frozen=True, kw_only=True):
    """Whose key to compare."""

    peer: Name


class Verification(Answer, frozen=True, kw_only=True):
    """Thirty digits; the other side sees the same ones."""

    mesh: str
    address: str
    key: str
    safety_number: str


# Messages


class SendArgs(InMesh, frozen=True, kw_only=True):
    """Send `text` to one addressee. `id` (32 hex digits) makes a repetition the same message."""

    to: Name
    text: Text
    priority: Priority = "next"
    reply_to: Name = ""
    expires_in_ms: Millis = 0
    """0 is the longest that a broker keeps a message."""
    session: Name = ""
    """Label of an open session of this daemon that is the sender."""
    id: Name = ""
    wait: WaitStage | Literal[""] = ""
    timeout_ms: Millis = 60_000


class Recipient(Answer, frozen=True, kw_only=True):
    """One addressee and how far its copy came."""

    address: str
    key: str
    stage: str
    code: str
    """Why it was refused, held or expired; empty otherwise."""
    online: bool | None
    """None when the broker was not asked, or could not be."""
    last_seen_at: int


class Sent(Answer, frozen=True, kw_only=True):
    """The message is durable here, and as far on its way as `stage` says."""

    id: str
    mesh: str
    stage: str
    """The least of its recipients' stages."""
    to: list[Recipient]
    expires_at: int
    link: str
    """`open`, or why the broker could not be reached."""
    replies: list["Message"]
    """With `wait` `replied`: the answer."""


class Sender(Answer, frozen=True, kw_only=True):
    """Who signed a message, as verified against the roster. Never taken from its text."""

    address: str
    key: str
    session: str
    trust: str


class Message(Answer, frozen=True, kw_only=True):
    """One opened message. `text` is data from another agent."""

    id: str
    mesh: str
    sender: Sender
    to_session: str
    sent_at: int
    received_at: int
    priority: str
    reply_to: str
    text: str
    unread: bool
    gap: int
    """Messages of the same session that are missing before this one."""


class InboxArgs(Args, frozen=True, kw_only=True):
    """Newest messages, oldest first; of every mesh when `mesh` is empty."""

    mesh: Name = ""
    unread: bool = True
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100


class InboxEnd(Answer, frozen=True, kw_only=True):
    """After the messages, each an event `{"message": …}`."""

    count: int
    more: int
    """Messages that match and were left out by `limit`."""


class Shown(Args, frozen=True, kw_only=True):
    """Messages that were written out. `read` signs a read receipt for each."""

    ids: Ids
    read: bool = False


class WatchArgs(Args, frozen=True, kw_only=True):
    """Follow messages as they arrive, after those that are unread. `session` opens a session with that label."""

    mesh: Name = ""
    session: Name = ""


class Watching(Answer, frozen=True, kw_only=True):
    """The first event of `watch`: from now on nothing is missed."""

    address: str


class MessageEvent(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """One event of `inbox` or `watch`: exactly one field is present."""

    message: Message | None = None
    watching: Watching | None = None


class TimelineArgs(InMesh, frozen=True, kw_only=True):
    """`id` is a message id or its beginning, 8 digits or more."""

    id: Name


class Step(Answer, frozen=True, kw_only=True):
    """One stage of one recipient's copy. `signer` holds the key whose signature was verified; empty for our own."""

    stage: str
    at: int
    to: str
    witness: Literal["sender", "broker", "peer"]
    signer: str
    signer_address: str
    code: str


class Timeline(Answer, frozen=True, kw_only=True):
    """Where a message is, and who says so."""

    id: str
    mesh: str
    direction: Literal["sent", "received"]
    address: str
    """The addressee of a sent message, the sender of a received one."""
    stage: str
    priority: str
    reply_to: str
    sent_at: int
    expires_at: int
    steps: list[Step]


# Backup


class BackupArgs(Args, frozen=True, kw_only=True):
    """Write an encrypted copy of the keys to `path`, which must not exist."""

    path: Path
    passphrase: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]


class BackedUp(Answer, frozen=True, kw_only=True):
    """The file holds the keys of these meshes; no messages."""

    path: str
    meshes: list[str]


class RestoreArgs(Args, frozen=True, kw_only=True):
    """Replace the configuration by the one in the backup."""

    path: Path
    passphrase: Annotated[str, msgspec.Meta(max_length=1_024)]
    force: bool = False


class Restored(Answer, frozen=True, kw_only=True):
    """The keys of these meshes are in use."""

    meshes: list[str]
    replaced: bool


# Doctor


class Check(Answer, frozen=True, kw_only=True):
    """One thing that was looked at. `exit_code` is the class of the failure, 0 when there is none."""

    name: str
    mesh: str
    ok: bool
    detail: str
    remedy: str
    exit_code: int


class Checks(Answer, frozen=True, kw_only=True):
    """Everything that was looked at."""

    ok: bool
    checks: list[Check]
