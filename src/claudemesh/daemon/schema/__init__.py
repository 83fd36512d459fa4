"""Arguments, events and answers of every operation; what `--json` prints (docs/spec/ipc.md §5; a test compares them).

Times are Unix milliseconds and 0 when there is none; keys are lowercase hex. Fields are only ever added.
"""

from typing import Final, NamedTuple

from claudemesh.daemon.schema.administration import (
    MeshHeads,
    MeshLog,
    MeshLogArgs,
    RecoverArgs,
    Recovered,
    Rekeyed,
    RevokeArgs,
    Revoked,
    RoleArgs,
    RoleGiven,
    TrustArgs,
    Trusted,
)
from claudemesh.daemon.schema.agents import (
    Agent,
    AgentArgs,
    AgentConfirmArgs,
    AgentList,
    AgentNews,
    AgentOffersArgs,
    AgentOpenArgs,
    AgentStatusArgs,
    AgentTakeArgs,
    AgentTaken,
)
from claudemesh.daemon.schema.base import Answer, Args, Done, InMesh, NoArgs
from claudemesh.daemon.schema.channels import (
    ChannelAddArgs,
    ChannelCreateArgs,
    ChannelCreated,
    ChannelHistoryArgs,
    ChannelHistoryEnd,
    ChannelJoinArgs,
    ChannelJoined,
    ChannelLeaveArgs,
    ChannelLeft,
    ChannelList,
    ChannelListArgs,
    ChannelMembers,
    ChannelMembersAdded,
    ChannelMembersArgs,
    ChannelMembersRemoved,
    ChannelRemoveArgs,
    ChannelShareArgs,
    ChannelShared,
)
from claudemesh.daemon.schema.holding import BudgetArgs, BudgetList, DndArgs, HeldList, HoldArgs, QuietState
from claudemesh.daemon.schema.members import (
    DeviceLinkArgs,
    InviteCreateArgs,
    InviteCreated,
    InviteList,
    InviteRevokeArgs,
    InviteRevoked,
    JoinArgs,
    Joined,
    PeerList,
    Verification,
    VerifyArgs,
    WhoAmI,
    WhoAmIArgs,
)
from claudemesh.daemon.schema.meshes import (
    DaemonStatus,
    MeshCreateArgs,
    MeshCreated,
    MeshDetail,
    MeshLeaveArgs,
    MeshLeft,
    MeshList,
    MeshMoveArgs,
    MeshMoved,
    Up,
    UpArgs,
)
from claudemesh.daemon.schema.messages import (
    InboxArgs,
    InboxEnd,
    MessageEvent,
    SendArgs,
    Sent,
    Shown,
    Timeline,
    TimelineArgs,
    WatchArgs,
)
from claudemesh.daemon.schema.policies import BlockArgs, GrantArgs, GrantList, GrantsArgs, UnblockArgs
from claudemesh.daemon.schema.sessions import (
    SessionCreateArgs,
    SessionCreated,
    SessionEndArgs,
    SessionEnded,
    SessionList,
)
from claudemesh.daemon.schema.upkeep import BackedUp, BackupArgs, Checks, RestoreArgs, Restored


class Contract(NamedTuple):
    """What an operation takes and gives. One that follows lasts until the other end hangs up."""

    args: type[Args]
    answer: type[Answer]
    event: type[Answer] | None = None
    follows: bool = False


CONTRACTS: Final[dict[str, Contract]] = {
    "daemon.status": Contract(NoArgs, DaemonStatus),
    "daemon.stop": Contract(NoArgs, Done),
    "up": Contract(UpArgs, Up),
    "mesh.create": Contract(MeshCreateArgs, MeshCreated),
    "mesh.list": Contract(NoArgs, MeshList),
    "mesh.show": Contract(InMesh, MeshDetail),
    "mesh.leave": Contract(MeshLeaveArgs, MeshLeft),
    "mesh.move": Contract(MeshMoveArgs, MeshMoved),
    "mesh.log": Contract(MeshLogArgs, MeshLog),
    "mesh.heads": Contract(InMesh, MeshHeads),
    "mesh.trust": Contract(TrustArgs, Trusted),
    "invite.create": Contract(InviteCreateArgs, InviteCreated),
    "invite.list": Contract(InMesh, InviteList),
    "invite.revoke": Contract(InviteRevokeArgs, InviteRevoked),
    "device.link": Contract(DeviceLinkArgs, InviteCreated),
    "join": Contract(JoinArgs, Joined),
    "revoke": Contract(RevokeArgs, Revoked),
    "role": Contract(RoleArgs, RoleGiven),
    "rekey": Contract(InMesh, Rekeyed),
    "recover": Contract(RecoverArgs, Recovered),
    "grant": Contract(GrantArgs, GrantList),
    "grants": Contract(GrantsArgs, GrantList),
    "block": Contract(BlockArgs, GrantList),
    "unblock": Contract(UnblockArgs, GrantList),
    "hold.list": Contract(InMesh, HeldList),
    "hold.release": Contract(HoldArgs, HeldList),
    "hold.refuse": Contract(HoldArgs, HeldList),
    "pause": Contract(InMesh, QuietState),
    "resume": Contract(InMesh, QuietState),
    "dnd": Contract(DndArgs, QuietState),
    "budget": Contract(BudgetArgs, BudgetList),
    "session.create": Contract(SessionCreateArgs, SessionCreated),
    "session.list": Contract(InMesh, SessionList),
    "session.end": Contract(SessionEndArgs, SessionEnded),
    "peers": Contract(InMesh, PeerList),
    "whoami": Contract(WhoAmIArgs, WhoAmI),
    "verify": Contract(VerifyArgs, Verification),
    "send": Contract(SendArgs, Sent),
    "inbox": Contract(InboxArgs, InboxEnd, MessageEvent),
    "inbox.shown": Contract(Shown, Done),
    "watch": Contract(WatchArgs, Done, MessageEvent, follows=True),
    "message": Contract(TimelineArgs, Timeline),
    "channel.create": Contract(ChannelCreateArgs, ChannelCreated),
    "channel.list": Contract(ChannelListArgs, ChannelList),
    "channel.join": Contract(ChannelJoinArgs, ChannelJoined),
    "channel.leave": Contract(ChannelLeaveArgs, ChannelLeft),
    "channel.members": Contract(ChannelMembersArgs, ChannelMembers),
    "channel.add": Contract(ChannelAddArgs, ChannelMembersAdded),
    "channel.remove": Contract(ChannelRemoveArgs, ChannelMembersRemoved),
    "channel.history": Contract(ChannelHistoryArgs, ChannelHistoryEnd, MessageEvent),
    "channel.share": Contract(ChannelShareArgs, ChannelShared),
    "agent.open": Contract(AgentOpenArgs, Agent),
    "agent.take": Contract(AgentTakeArgs, AgentTaken),
    "agent.handed": Contract(AgentOffersArgs, Done),
    "agent.confirm": Contract(AgentConfirmArgs, Done),
    "agent.withdraw": Contract(AgentOffersArgs, Done),
    "agent.status": Contract(AgentStatusArgs, Agent),
    "agent.close": Contract(AgentArgs, Done),
    "agent.list": Contract(NoArgs, AgentList),
    "agent.news": Contract(AgentArgs, Done, AgentNews, follows=True),
    "backup": Contract(BackupArgs, BackedUp),
    "restore": Contract(RestoreArgs, Restored),
    "doctor": Contract(NoArgs, Checks),
}
"""Every operation by its name on the socket."""
