"""What a person decides about agents: what was held, how much they may cause, when all is quiet (docs/sdk.md §11)."""

from claudemesh.peer import releasing
from claudemesh.peer.administrator import Administrator
from claudemesh.peer.holding import BudgetView
from claudemesh.peer.quiet import Quiet, Withheld
from claudemesh.peer.releasing import HeldMessage
from claudemesh.protocol.loops import Budget
from claudemesh.types import Priority


class Guardian(Administrator):
    """The part of a peer that keeps agents from talking to each other without end (docs/spec/holding.md)."""

    # What waits for a person

    async def held(self) -> list[HeldMessage]:
        """Messages of agents that nobody gets before a person releases them, the oldest first."""
        return await releasing.list_held(self._parts)

    async def release_held(self, *prefixes: str, sender: str = "") -> list[HeldMessage]:
        """Let held messages in, by the beginnings of their ids, or all of a sender; each is shown once, like any other.

        Raises:
            AddressError: `unknown_message`, or the sender is nobody. Nothing changed.
        """
        return await releasing.release(self._parts, await self._numbers(prefixes, sender))

    async def refuse_held(self, *prefixes: str, sender: str = "") -> list[HeldMessage]:
        """Drop held messages and tell their senders; raises as `release_held`."""
        numbers = await self._numbers(prefixes, sender)
        before = {one.message.number: one for one in await self.held()}
        refused = await releasing.refuse(self._parts, numbers)
        return [before[one] for one in refused if one in before]

    async def _numbers(self, prefixes: tuple[str, ...], sender: str) -> list[int]:
        numbers = await releasing.find_held(self._parts, prefixes)
        if sender:
            numbers += releasing.of_sender(await self.held(), self.resolve(sender).peers)
        return numbers

    # How much agents may cause

    def budgets(self) -> list[BudgetView]:
        """Every budget: those for everybody, then those that differ for a peer or user."""
        return self._parts.holding.budgets()

    async def set_budget(self, name: Budget, amount: int | None, peer: str = "") -> None:
        """Allow agents more or less, everybody's or those of one peer or user; None is as if nothing was decided.

        Raises:
            UsageError: The amount is not from 0 to 100,000, or the budget is about no sender and `peer` names one.
            AddressError: There is no such peer.
        """
        await self._parts.holding.decide(name, amount, self.resolve(peer) if peer else None)

    # Quiet

    @property
    def quiet(self) -> Quiet:
        """Since when the mesh is paused here, and since when agents are not to be disturbed."""
        return self._parts.holding.quiet

    def withheld(self, priority: Priority) -> Withheld:
        """Why a message of a priority, as `Received` has it, is not put before an agent now; empty when it may be."""
        return self._parts.holding.quiet.withheld(priority)

    async def pause(self) -> None:
        """At once no agent here gets or sends anything in this mesh; people do as before."""
        await self._parts.holding.set_quiet("paused", True)
        self._quiet_changed()

    async def resume(self) -> None:
        """Agents get what came meanwhile, and what they wrote before the pause leaves."""
        await self._parts.holding.set_quiet("paused", False)
        self._quiet_changed()

    async def set_dnd(self, on: bool) -> None:
        """Have agents get only messages of priority `now` from who may interrupt, or everything again."""
        await self._parts.holding.set_quiet("dnd", on)
        self._quiet_changed()

    def _quiet_changed(self) -> None:
        self._parts.tracker.touch_all()
        self._parts.outgoing.wake()
        self._parts.channels.posting.wake()
