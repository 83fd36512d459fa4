"""How far a message came: one machine for the sender's outbox, one for what is known of the recipient.

`step` moves one submission (one message to one mailbox) until the broker's answer settles it.
`advance` moves what is shown of a message, and only by a claim of somebody who can know it.
Source: docs/spec/delivery.md, whose tables these functions are.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from claudemesh.protocol.limits import MINUTE_MS, RESEND_AFTER_MS, SECOND_MS
from claudemesh.types import UnixMillis

RETRY_DEFAULT_MS: Final = 5 * SECOND_MS
RETRY_MAX_MS: Final = 10 * MINUTE_MS

RESEAL_CODES: Final = frozenset({"stale_roster", "stale_key"})
"""Refusals that a newer roster or card cures: the message is sealed again under the same id."""
RETRY_CODES: Final = frozenset({"rate_limited", "mailbox_full", "draining", "storage", "moved", "unknown_mesh"})
"""Refusals that time cures: the same envelope is submitted again."""


# What is known of a message


class Stage(StrEnum):
    """A stage of DELIVERY: each has one kind of witness, and none means more than it says."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    OFFERED = "offered"
    READ = "read"
    REPLIED = "replied"
    HELD = "held"
    REFUSED = "refused"
    EXPIRED = "expired"


class Witness(StrEnum):
    """Who states a stage."""

    SENDER = "sender"
    """This machine, by its own journal."""
    BROKER = "broker"
    """The broker, by a signed statement."""
    PEER = "peer"
    """The recipient, by a receipt that an attested session of it signed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One witness's word for one stage."""

    stage: Stage
    witness: Witness


_RANKS: Final[dict[tuple[Stage, Witness], int]] = {
    (Stage.QUEUED, Witness.SENDER): 0,
    (Stage.ACCEPTED, Witness.BROKER): 1,
    (Stage.EXPIRED, Witness.SENDER): 2,
    (Stage.REFUSED, Witness.SENDER): 2,
    (Stage.REFUSED, Witness.BROKER): 3,
    (Stage.EXPIRED, Witness.BROKER): 3,
    (Stage.DELIVERED, Witness.PEER): 4,
    (Stage.HELD, Witness.PEER): 5,
    (Stage.OFFERED, Witness.PEER): 6,
    (Stage.REFUSED, Witness.PEER): 7,
    (Stage.EXPIRED, Witness.PEER): 7,
    (Stage.READ, Witness.PEER): 8,
    (Stage.REPLIED, Witness.PEER): 9,
}
"""The admissible claims. What the recipient signs outranks what the broker says of the same message."""


def is_admissible(claim: Claim) -> bool:
    """Whether this witness can know this stage at all; any other claim is ignored."""
    return (claim.stage, claim.witness) in _RANKS


def rank(claim: Claim) -> int:
    """How far an admissible claim goes; equal ranks exclude each other, and the first one known stays."""
    return _RANKS[claim.stage, claim.witness]


def advance(shown: Claim | None, claim: Claim) -> Claim | None:
    """What is shown of a message after one more claim about it.

    Claims arrive in any order and more than once; the result depends on their set only.

    Returns:
        `claim` when it is admissible and goes further than `shown`, else `shown`.
    """
    if not is_admissible(claim):
        return shown
    if shown is None or rank(claim) > rank(shown):
        return claim
    return shown


def reaches(shown: Claim | None, stage: Stage) -> bool:
    """Whether waiting for `stage` is over: it, or one that implies it, is known."""
    return shown is not None and stage in _IMPLIED[shown.stage, shown.witness]


def has_ended(shown: Claim | None) -> bool:
    """Whether the message failed for good: it was refused, or it expired."""
    return shown is not None and shown.stage in (Stage.REFUSED, Stage.EXPIRED)


_AT_BROKER: Final = frozenset({Stage.QUEUED, Stage.ACCEPTED})
_AT_PEER: Final = _AT_BROKER | {Stage.DELIVERED}
_AT_HOST: Final = _AT_PEER | {Stage.OFFERED}
_IMPLIED: Final[dict[tuple[Stage, Witness], frozenset[Stage]]] = {
    (Stage.QUEUED, Witness.SENDER): frozenset({Stage.QUEUED}),
    (Stage.ACCEPTED, Witness.BROKER): _AT_BROKER,
    (Stage.EXPIRED, Witness.SENDER): frozenset({Stage.QUEUED, Stage.EXPIRED}),
    (Stage.REFUSED, Witness.SENDER): frozenset({Stage.QUEUED, Stage.REFUSED}),
    (Stage.REFUSED, Witness.BROKER): frozenset({Stage.QUEUED, Stage.REFUSED}),
    (Stage.EXPIRED, Witness.BROKER): _AT_BROKER | {Stage.EXPIRED},
    (Stage.DELIVERED, Witness.PEER): _AT_PEER,
    (Stage.HELD, Witness.PEER): _AT_PEER | {Stage.HELD},
    (Stage.OFFERED, Witness.PEER): _AT_HOST,
    (Stage.REFUSED, Witness.PEER): _AT_PEER | {Stage.REFUSED},
    (Stage.EXPIRED, Witness.PEER): _AT_PEER | {Stage.EXPIRED},
    (Stage.READ, Witness.PEER): _AT_HOST | {Stage.READ},
    (Stage.REPLIED, Witness.PEER): _AT_HOST | {Stage.READ, Stage.REPLIED},
}


# One submission


class Outcome(Enum):
    """How a submission ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Queued:
    """Committed to the outbox; not sealed, or to be sealed again."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Sealed and journaled; the link is down, so whether the broker has it is unknown."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """Transmitted on the open link; the answer is due."""

    resend_at: UnixMillis


@dataclass(frozen=True, slots=True)
class Waiting:
    """Refused for now; submitted again at `retry_at`. After `storage` the broker may have it all the same."""

    retry_at: UnixMillis


@dataclass(frozen=True, slots=True)
class Settled:
    """Answered. `resealed` says that a recipient's nack was followed once already."""

    outcome: Outcome
    resealed: bool = False


State = Queued | Sealed | InFlight | Waiting | Settled


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """The link is open and the roster is synced."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The link is down."""


@dataclass(frozen=True, slots=True)
class EnvelopeSealed:
    """The sealed envelope is in the journal."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class BrokerAccepted:
    """The broker signed that it stored the envelope."""


@dataclass(frozen=True, slots=True)
class BrokerRefused:
    """The broker did not store the envelope."""

    code: str
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RecipientNacked:
    """The recipient could not open the envelope that the broker delivered."""

    code: str


@dataclass(frozen=True, slots=True)
class ExpiryPassed:
    """The message's own time is over."""


@dataclass(frozen=True, slots=True)
class RecipientRemoved:
    """The roster says that the recipient is no peer of the mesh any more."""


Event = (
    LinkOpened
    | LinkLost
    | EnvelopeSealed
    | Ticked
    | BrokerAccepted
    | BrokerRefused
    | RecipientNacked
    | RecipientRemoved
    | ExpiryPassed
)


class Action(Enum):
    """What the shell does after a step, in the order given."""

    REFRESH = "refresh"
    """Fetch the roster and the recipient's card."""
    SEAL = "seal"
    """Seal and journal, then report `EnvelopeSealed`."""
    TRANSMIT = "transmit"
    """Send the journaled envelope."""
    REPORT = "report"
    """Record the outcome in the journal."""


def step(state: State, event: Event, now: UnixMillis) -> tuple[State, tuple[Action, ...]]:
    """Advance one submission by one event; the only place its state changes."""
    match state, event:
        case Queued(), LinkOpened():
            return state, (Action.SEAL,)
        case Queued(), EnvelopeSealed():
            return _in_flight(now), (Action.TRANSMIT,)
        case Sealed(), LinkOpened():
            return _in_flight(now), (Action.TRANSMIT,)
        case InFlight(resend_at=due), Ticked() if now >= due:
            return _in_flight(now), (Action.TRANSMIT,)
        case Waiting(retry_at=due), Ticked() if now >= due:
            return _in_flight(now), (Action.TRANSMIT,)
        case InFlight() | Waiting(), LinkLost():
            return Sealed(), ()
        case InFlight() | Waiting() | Sealed(), BrokerAccepted():
            return Settled(Outcome.ACCEPTED), (Action.REPORT,)
        case InFlight(), BrokerRefused(code=code, retry_after_ms=after):
            return _refused(code, after, now)
        case Queued() | Waiting(), ExpiryPassed():
            return Settled(Outcome.EXPIRED), (Action.REPORT,)
        case Queued() | Waiting(), RecipientRemoved():
            return Settled(Outcome.REFUSED), (Action.REPORT,)
        case Settled(outcome=Outcome.ACCEPTED, resealed=False), RecipientNacked(code=code) if code in RESEAL_CODES:
            return Queued(), (Action.REFRESH, Action.SEAL)
        case _:
            return state, ()  # the table test lists every pair, so none falls through unseen


def _refused(code: str, retry_after_ms: int | None, now: UnixMillis) -> tuple[State, tuple[Action, ...]]:
    if code in RESEAL_CODES:
        return Queued(), (Action.REFRESH, Action.SEAL)
    if code in RETRY_CODES:
        wait_ms = min(max(retry_after_ms or RETRY_DEFAULT_MS, 1), RETRY_MAX_MS)
        return Waiting(UnixMillis(now + wait_ms)), ()
    return Settled(Outcome.REFUSED), (Action.REPORT,)


def _in_flight(now: UnixMillis) -> InFlight:
    return InFlight(UnixMillis(now + RESEND_AFTER_MS))
