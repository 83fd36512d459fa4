"""Running sessions of agents, and what is put before them: asked by the hooks of their hosts."""

from typing import Annotated, Literal

import msgspec

from claudemesh.daemon.schema.base import Answer, Args, Millis, Name, Path

Host = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Offers = Annotated[list[Millis], msgspec.Meta(max_length=1_000)]
Tags = Annotated[list[Name], msgspec.Meta(max_length=16)]
MomentName = Literal["session_start", "prompt", "tool", "turn_end", "idle_wake", "inbox"]
ReachName = Literal["wakeable", "tool", "turn", "asked"]


class AgentArgs(Args, frozen=True, kw_only=True):
    """Which session."""

    host: Host
    """The program that the agent runs in, such as `claude-code`."""
    key: Key
    """The host's own id of the session."""


class AgentOpenArgs(AgentArgs, frozen=True, kw_only=True):
    """Open a session, or find it open: then nothing of it changes."""

    cwd: Path = ""
    """Its working directory; it stays on this machine."""
    label: Name = ""
    """What others address it by; empty for what it was called before, or else the base name of `cwd`."""
    mesh: Name = ""
    """The only mesh that it speaks in; empty for every one."""
    tags: Tags = msgspec.field(default_factory=list)
    """As `key=value`: others reach it by `tag:key=value`."""
    reach: ReachName = "asked"
    """How a message reaches it: it is `wakeable`, at its next `tool`, at the end of a `turn`, only when `asked`."""


class AgentTakeArgs(AgentOpenArgs, frozen=True, kw_only=True):
    """Take what may be shown now. Opens the session when it is not open."""

    moment: MomentName
    """`session_start`, `prompt`, `tool`, `turn_end`, `idle_wake`, or `inbox` when the agent asks."""
    adapter: Word
    """How it will be shown, as the senders are told: one word in small letters."""
    limit_characters: Annotated[int, msgspec.Meta(ge=2_000, le=1_000_000)] = 9_500
    """What the host takes at once, in UTF-16 code units."""
    reply: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """How to answer, with `{to}` and `{id}` to be filled in; empty for the tool."""
    confirm: Name = ""
    """Evidence, such as `next_event`, that what the host was given before was read; none at `session_start`."""
    message: Name = ""
    """Only this message, by its id or first 8 digits, from where it was cut; for `inbox`."""


class AgentOffersArgs(AgentArgs, frozen=True, kw_only=True):
    """What became of offers. Those of other sessions are not touched."""

    offers: Offers
    """Their numbers."""


class AgentConfirmArgs(AgentOffersArgs, frozen=True, kw_only=True):
    """Offers are in the model's context: their senders get `read`, signed by this session."""

    evidence: Word
    """What shows it, one word: `tool_result`, `turn_ended`, `next_event`, `turn_acknowledged`, `transcript`."""


class AgentStatusArgs(AgentArgs, frozen=True, kw_only=True):
    """Change what is said of an open session; what is left out stays."""

    status: Literal["", "idle", "busy", "away"] = ""
    """`idle`, `busy` or `away`."""
    reach: ReachName | Literal[""] = ""
    """How a message reaches it."""
    dnd: bool | None = None
    """Whether only `now` of peers that were granted it may reach it without its asking."""
    about: Annotated[str, msgspec.Meta(max_length=120)] | None = None
    """What it works at, in one line that others see."""
    tags: Tags | None = None
    """Its tags."""


class WaitingMessages(Answer, frozen=True, kw_only=True):
    """How many unread messages wait for a session; held ones are left out."""

    now: int
    """Those that may interrupt."""
    next: int
    """Those that may wake it."""
    low: int
    """Those that wake nobody, acknowledgements among them."""
    doubtful: int
    """Those that were offered and left no sign whether they were shown."""


class DoubtfulOffer(Answer, frozen=True, kw_only=True):
    """An offer that may or may not have been shown. It is not made again, unless the agent asks."""

    offer: int
    """Its number, to be confirmed or withdrawn by whoever finds evidence."""
    number: int
    """The message's number in the inbox."""
    adapter: str
    """By which way it was offered."""
    offered_at: int
    """When."""


class Agent(Answer, frozen=True, kw_only=True):
    """One running session of an agent."""

    host: str
    """The program that it runs in."""
    key: str
    """The host's own id of it."""
    label: str
    """What others address it by."""
    addresses: list[str]
    """Its address in each mesh."""
    status: str
    """`idle`, `busy` or `away`."""
    reach: str
    """`wakeable`, `tool`, `turn` or `asked`."""
    dnd: bool
    """Whether it is not to be disturbed."""
    about: str
    """What it works at, in its own words."""
    tags: list[str]
    """As `key=value`."""
    waiting: WaitingMessages
    """What is unread."""
    doubtful: list[DoubtfulOffer]
    """Offers that left no sign."""


class AgentList(Answer, frozen=True, kw_only=True):
    """Every session that is open in this daemon."""

    agents: list[Agent]
    """In the order of opening."""


class OfferedMessage(Answer, frozen=True, kw_only=True):
    """A message, or a part of one, that is to be put before a model."""

    offer: int
    """The offer's number; 0 where there is nothing more to confirm."""
    id: str
    """The message's id."""
    mesh: str
    """Alias of the mesh."""
    sender: str
    """Address of its sender."""
    priority: str
    """`now`, `next` or `low`."""
    whole: bool
    """Whether the message's end is there; the rest is for `inbox`."""


class AgentTaken(Answer, frozen=True, kw_only=True):
    """What to show. It counts as offered from now on, and as read when that is confirmed."""

    text: str
    """Every message as its block; empty when there is nothing to show."""
    offers: list[OfferedMessage]
    """What the text holds."""
    waiting: int
    """How many unread messages are left for the session."""


class AgentNews(Answer, frozen=True, kw_only=True):
    """What waits for a session, as it stands now."""

    waiting: WaitingMessages
    """What is unread."""
    interrupts: bool
    """Whether something is worth a busy session's next tool."""
    wakes: bool
    """Whether something is worth waking this session for, rather than another one; a busy one is not woken."""
