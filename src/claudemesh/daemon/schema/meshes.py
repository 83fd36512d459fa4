"""The daemon and its meshes."""

from typing import Any, Literal

from claudemesh.daemon.schema.base import Answer, Args, InMesh, Name, Path

LinkState = Literal["open", "connecting", "closed"]


class MeshSummary(Answer, frozen=True, kw_only=True):
    """One mesh that this daemon is a peer of."""

    alias: str
    """What this machine calls the mesh."""
    id: str
    """64 hex digits."""
    address: str
    """This peer's address in the mesh."""
    role: str
    """`member`, `admin` or `owner`."""
    broker_url: str
    """URL of the mesh's broker."""
    members: int
    """Active peers of the roster."""
    link: LinkState
    """`open`, `connecting` or `closed`."""
    link_problem: str
    """Code of the last failure to reach the broker; empty when the link is open."""
    frozen: bool
    """Whether sending has stopped because the broker contradicted itself."""
    queued: int
    """Messages of this machine that the broker has not accepted."""
    unread: int
    """Received messages that nobody was shown."""
    held: int
    """Messages of agents that wait for a person (`claudemesh hold list`)."""
    paused_since: int
    """Since when no agent here gets or sends anything; 0: it is not paused."""
    dnd_since: int
    """Since when agents here get only what may interrupt; 0: they get everything."""


class DaemonStatus(Answer, frozen=True, kw_only=True):
    """The daemon that answered."""

    running: bool
    """Always true: who does not run does not answer."""
    pid: int
    """Process id."""
    version: str
    """Version of claudemesh."""
    config_dir: str
    """The configuration directory."""
    socket: str
    """The daemon's socket."""
    started_at: int
    """When it started."""
    local_broker: str
    """The embedded broker's URL; empty when `up` was never used."""
    meshes: list[MeshSummary]
    """Every mesh."""


class UpArgs(Args, frozen=True, kw_only=True):
    """`name` and `device` are used when the mesh `local` does not exist yet."""

    name: Name = ""
    """What the user is called; empty for the login name."""
    device: Name = ""
    """What this machine is called; empty for its host name."""


class Up(Answer, frozen=True, kw_only=True):
    """The embedded broker runs and the mesh `local` exists."""

    broker_url: str
    """URL of the embedded broker."""
    created: bool
    """Whether the mesh was made just now."""
    mesh: MeshSummary
    """The mesh `local`."""


class MeshCreateArgs(Args, frozen=True, kw_only=True):
    """Found a mesh on a broker."""

    alias: Name
    """What this machine is to call the mesh."""
    broker_url: Path
    """`ws://`, `wss://` or `unix://` URL of a broker."""
    name: Name = ""
    """What the user is called; empty for the login name."""
    device: Name = ""
    """What this machine is called; empty for its host name."""


class MeshCreated(Answer, frozen=True, kw_only=True):
    """The mesh exists at its broker. `recovery_words` are shown once and stored nowhere."""

    mesh: MeshSummary
    """The new mesh."""
    recovery_words: str
    """The recovery key as words; empty when there is none."""


class MeshList(Answer, frozen=True, kw_only=True):
    """Every mesh."""

    meshes: list[MeshSummary]
    """Every mesh."""


class MeshDetail(Answer, frozen=True, kw_only=True):
    """One mesh with the state of its roster."""

    mesh: MeshSummary
    """The mesh."""
    peer: str
    """This peer's key."""
    user: str
    """This user's key."""
    broker_key: str
    """The broker's key, as the roster names it."""
    seq: int
    """Number of the newest roster entry."""
    head: str
    """Its hash."""
    head_number: str
    """The head as digits to compare by voice."""
    signed_at: int
    """When the broker last signed this head."""
    conflict: dict[str, Any]
    """The proof against the broker when the mesh is frozen; empty otherwise."""


class MeshMoveArgs(InMesh, frozen=True, kw_only=True):
    """Re-home a mesh; needs the owner."""

    broker_url: Path
    """URL of the new broker."""


class MeshMoved(Answer, frozen=True, kw_only=True):
    """The new broker serves the mesh with its whole log."""

    mesh: MeshSummary
    """The mesh at its new broker."""
    from_url: str
    """URL of the broker that it left."""


class MeshLeaveArgs(InMesh, frozen=True, kw_only=True):
    """Leave; the mesh must be named."""

    forget: bool = False
    """Delete the local keys even when the broker cannot be told now."""


class MeshLeft(Answer, frozen=True, kw_only=True):
    """`revoked`: the roster says so; otherwise only this machine forgot its keys."""

    alias: str
    """What this machine calls the mesh."""
    id: str
    """64 hex digits."""
    revoked: bool
    """Whether the roster says that this peer left."""
