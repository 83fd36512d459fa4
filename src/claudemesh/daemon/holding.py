"""Held messages, budgets, pause and dnd of one mesh at a time."""

from typing import Final

import msgspec

from claudemesh.daemon.context import Context
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.reading import show
from claudemesh.daemon.schema import holding as schema
from claudemesh.daemon.schema.base import InMesh
from claudemesh.errors import UsageError
from claudemesh.peer import Peer
from claudemesh.peer.releasing import HeldMessage
from claudemesh.types import PeerId

MAX_LISTED: Final = 1_000
LISTED_CHARACTERS: Final = 300_000
"""Of all texts in a listing; JSON writes each with up to six bytes."""


class Holding:
    """What a person decides about agents."""

    def __init__(self, context: Context) -> None:
        self._home = context.home

    async def held(self, args: InMesh, reply: Reply) -> schema.HeldList:
        """What waits for a person."""
        peer = self._home.peer(args.mesh)
        return _listed(peer, await peer.held())

    async def release(self, args: schema.HoldArgs, reply: Reply) -> schema.HeldList:
        """Let held messages in."""
        peer = self._home.peer(args.mesh)
        return _listed(peer, await peer.release_held(*await _meant(peer, args), sender=args.sender))

    async def refuse(self, args: schema.HoldArgs, reply: Reply) -> schema.HeldList:
        """Drop held messages, and tell their senders."""
        peer = self._home.peer(args.mesh)
        return _listed(peer, await peer.refuse_held(*await _meant(peer, args), sender=args.sender))

    async def pause(self, args: InMesh, reply: Reply) -> schema.QuietState:
        """Stop every agent of a mesh on this machine."""
        peer = self._home.peer(args.mesh)
        await peer.pause()
        return await _quiet(peer)

    async def resume(self, args: InMesh, reply: Reply) -> schema.QuietState:
        """Let them go on."""
        peer = self._home.peer(args.mesh)
        await peer.resume()
        return await _quiet(peer)

    async def dnd(self, args: schema.DndArgs, reply: Reply) -> schema.QuietState:
        """Have agents get only what may interrupt."""
        peer = self._home.peer(args.mesh)
        await peer.set_dnd(args.on)
        return await _quiet(peer)

    async def budget(self, args: schema.BudgetArgs, reply: Reply) -> schema.BudgetList:
        """Show the budgets, after changing one."""
        peer = self._home.peer(args.mesh)
        if args.name:
            await peer.set_budget(args.name, args.amount, args.peer)
        elif args.peer or args.amount is not None:
            raise UsageError("usage", "name the budget that is to change")
        budgets = [
            schema.Budget(
                name=one.name,
                amount=one.amount,
                address=_address(peer, one.subject),
                key=one.subject,
                decided=one.is_decided,
            )
            for one in peer.budgets()
        ]
        return schema.BudgetList(mesh=peer.alias, budgets=budgets)


async def _meant(peer: Peer, args: schema.HoldArgs) -> list[str]:
    if not (args.ids or args.sender or args.everything):
        raise UsageError("usage", "say which messages: by id, by sender, or all")
    return [one.message.id for one in await peer.held()] if args.everything else args.ids


def _listed(peer: Peer, found: list[HeldMessage]) -> schema.HeldList:
    """Cut to what one frame holds, whatever those sent who are held here."""
    listed = found[:MAX_LISTED]
    room = LISTED_CHARACTERS // max(1, len(listed))
    held = [
        schema.Held(
            message=msgspec.structs.replace(show(peer, one.message), text=one.message.text[:room]),
            characters=len(one.message.text),
            reason=one.reason,
            reached=one.reached,
            allowed=one.allowed,
        )
        for one in listed
    ]
    return schema.HeldList(mesh=peer.alias, held=held, more=len(found) - len(listed))


async def _quiet(peer: Peer) -> schema.QuietState:
    paused_since, dnd_since = peer.quiet
    return schema.QuietState(
        mesh=peer.alias, paused_since=paused_since, dnd_since=dnd_since, held=len(await peer.held())
    )


def _address(peer: Peer, subject: str) -> str:
    """How a peer is addressed; of a user the beginning of its key, since it has several addresses."""
    if not subject:
        return ""
    view = peer.view(PeerId(subject))
    return view.address if view is not None else subject[:16]
