"""Every operation of the local API, bound to what performs it (docs/spec/ipc.md §5)."""

from collections.abc import Awaitable, Callable
from typing import Any

from claudemesh.daemon.administration import Administration
from claudemesh.daemon.agents.operations import AgentOperations
from claudemesh.daemon.backups import Backups
from claudemesh.daemon.channels import Channels
from claudemesh.daemon.checkup import Checkup
from claudemesh.daemon.context import Context
from claudemesh.daemon.holding import Holding
from claudemesh.daemon.ipc_server import Operation
from claudemesh.daemon.members import Members
from claudemesh.daemon.meshes import Meshes
from claudemesh.daemon.messages import Messages
from claudemesh.daemon.policies import Policies
from claudemesh.daemon.reading import Reading
from claudemesh.daemon.schema import CONTRACTS
from claudemesh.daemon.sessions import HandedOutSessions

Performer = Callable[[Any, Any], Awaitable[Any]]


def operations(context: Context) -> dict[str, Operation]:
    """Every operation by its name on the socket; each contract has exactly one performer."""
    meshes, members, messages = Meshes(context), Members(context), Messages(context)
    reading, backups, checkup = Reading(context), Backups(context.home), Checkup(context)
    channels, administration = Channels(context), Administration(context)
    policies, sessions = Policies(context), HandedOutSessions(context)
    holding = Holding(context)
    agents = AgentOperations(context.agents)
    performers: dict[str, Performer] = {
        "daemon.status": meshes.status,
        "daemon.stop": meshes.stop,
        "up": meshes.up,
        "mesh.create": meshes.create,
        "mesh.list": meshes.list,
        "mesh.show": meshes.show,
        "mesh.leave": meshes.leave,
        "mesh.move": meshes.move,
        "mesh.log": administration.log,
        "mesh.heads": administration.heads,
        "mesh.trust": administration.trust,
        "invite.create": members.invite,
        "invite.list": members.invites,
        "invite.revoke": members.revoke_invite,
        "device.link": members.link_device,
        "join": members.join,
        "revoke": administration.revoke,
        "role": administration.role,
        "rekey": administration.rekey,
        "recover": administration.recover,
        "grant": policies.grant,
        "grants": policies.grants,
        "block": policies.block,
        "unblock": policies.unblock,
        "hold.list": holding.held,
        "hold.release": holding.release,
        "hold.refuse": holding.refuse,
        "pause": holding.pause,
        "resume": holding.resume,
        "dnd": holding.dnd,
        "budget": holding.budget,
        "session.create": sessions.create,
        "session.list": sessions.list,
        "session.end": sessions.end,
        "peers": members.peers,
        "whoami": members.whoami,
        "verify": members.verify,
        "send": messages.send,
        "message": messages.timeline,
        "inbox": reading.inbox,
        "inbox.shown": reading.shown,
        "watch": reading.watch,
        "channel.create": channels.create,
        "channel.list": channels.list,
        "channel.join": channels.join,
        "channel.leave": channels.leave,
        "channel.members": channels.members,
        "channel.add": channels.add,
        "channel.remove": channels.remove,
        "channel.history": channels.history,
        "channel.share": channels.share,
        "agent.open": agents.open,
        "agent.take": agents.take,
        "agent.handed": agents.handed,
        "agent.confirm": agents.confirm,
        "agent.withdraw": agents.withdraw,
        "agent.status": agents.status,
        "agent.close": agents.close,
        "agent.list": agents.list,
        "agent.news": agents.news,
        "backup": backups.backup,
        "restore": backups.restore,
        "doctor": checkup.doctor,
    }
    unheard: dict[str, Performer] = {"agent.take": agents.take_back}
    return {
        name: Operation(contract.args, performers[name], contract.follows, unheard.get(name))
        for name, contract in CONTRACTS.items()
    }
