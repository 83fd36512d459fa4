"""What agents may cause here: held messages, budgets, pause and dnd (docs/spec/holding.md)."""

from typing import Annotated, Literal

import msgspec

from claudemesh.daemon.schema.base import Answer, InMesh, Name
from claudemesh.daemon.schema.messages import Message

BudgetName = Literal["hops", "pair", "session", "sends"]


class Held(Answer, frozen=True, kw_only=True):
    """A message of an agent that nobody gets before a person releases it."""

    message: Message
    """The message; its `number` is that of its row among the held ones, and its `text` may be a beginning."""
    characters: int
    """Of the whole text."""
    reason: str
    """`hops`, `revisit`, `repeat`, `pair` or `session`."""
    reached: int
    """How far it went: answers, or messages in ten minutes."""
    allowed: int
    """How far it may go without a person."""


class HeldList(Answer, frozen=True, kw_only=True):
    """Messages that wait for a person, or that one has just decided about."""

    mesh: str
    """Alias of the mesh."""
    held: list[Held]
    """The oldest first, up to 1,000; their texts are cut so that all of them find room."""
    more: int
    """How many further ones there are."""


class HoldArgs(InMesh, frozen=True, kw_only=True):
    """Which held messages a decision is about: at least one, by id, by sender, or all."""

    ids: Annotated[list[Name], msgspec.Meta(max_length=256)] = msgspec.field(default_factory=list)
    """Ids or their beginnings, 4 digits or more."""
    sender: Name = ""
    """Every one of this peer or user."""
    everything: bool = False
    """Every one."""


class DndArgs(InMesh, frozen=True, kw_only=True):
    """Have agents get only what may interrupt, or everything again."""

    on: bool
    """Whether they are not to be disturbed."""


class QuietState(Answer, frozen=True, kw_only=True):
    """What is quiet in a mesh on this machine."""

    mesh: str
    """Alias of the mesh."""
    paused_since: int
    """Since when no agent gets or sends anything; 0: it is not paused."""
    dnd_since: int
    """Since when agents get only what may interrupt; 0: they get everything."""
    held: int
    """Messages that wait for a person."""


class BudgetArgs(InMesh, frozen=True, kw_only=True):
    """Show the budgets, or with `name` change one."""

    name: BudgetName | Literal[""] = ""
    """Which one; empty to change nothing."""
    amount: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None
    """How much; null for what holds without a decision."""
    peer: Name = ""
    """Only for this peer or user; empty for everybody. Only `hops` and `pair` may differ."""


class Budget(Answer, frozen=True, kw_only=True):
    """One budget as it holds."""

    name: BudgetName
    """`hops`: answers in a conversation; `pair`, `session`, `sends`: messages in ten minutes."""
    amount: int
    """How much agents may cause before a person is asked."""
    address: str
    """Of the peer or user that it is for; empty for everybody."""
    key: str
    """The key of that peer or user; empty for everybody."""
    decided: bool
    """Whether a person set it; else it is the default."""


class BudgetList(Answer, frozen=True, kw_only=True):
    """How much agents may cause on this machine before a person is asked."""

    mesh: str
    """Alias of the mesh."""
    budgets: list[Budget]
    """Those for everybody, then those that differ."""
