"""The two machines of docs/spec/delivery.md, every state against every event."""

from itertools import permutations, product

import pytest

from claudemesh.protocol import delivery, limits
from claudemesh.protocol.delivery import (
    Action,
    BrokerAccepted,
    BrokerRefused,
    Claim,
    EnvelopeSealed,
    Event,
    ExpiryPassed,
    InFlight,
    LinkLost,
    LinkOpened,
    Outcome,
    Queued,
    RecipientNacked,
    RecipientRemoved,
    Sealed,
    Settled,
    Stage,
    State,
    Ticked,
    Waiting,
    Witness,
    advance,
    reaches,
    step,
)
from claudemesh.types import UnixMillis

NOW = UnixMillis(1_000_000)
EARLIER = UnixMillis(NOW - 1)
LATER = UnixMillis(NOW + 1)
RESEND = UnixMillis(NOW + limits.RESEND_AFTER_MS)
RETRY = UnixMillis(NOW + 7_000)

STATES: dict[str, State] = {
    "queued": Queued(),
    "sealed": Sealed(),
    "in flight": InFlight(LATER),
    "in flight, due": InFlight(EARLIER),
    "waiting": Waiting(LATER),
    "waiting, due": Waiting(EARLIER),
    "accepted": Settled(Outcome.ACCEPTED),
    "accepted, resealed": Settled(Outcome.ACCEPTED, resealed=True),
    "refused": Settled(Outcome.REFUSED),
    "expired": Settled(Outcome.EXPIRED),
}
EVENTS: dict[str, Event] = {
    "link opened": LinkOpened(),
    "link lost": LinkLost(),
    "sealed": EnvelopeSealed(),
    "tick": Ticked(),
    "accepted": BrokerAccepted(),
    "stale_roster": BrokerRefused("stale_roster"),
    "rate_limited": BrokerRefused("rate_limited", 7_000),
    "unknown_peer": BrokerRefused("unknown_peer"),
    "nack stale_key": RecipientNacked("stale_key"),
    "nack other": RecipientNacked("no_such_code"),
    "expiry": ExpiryPassed(),
    "removed": RecipientRemoved(),
}
ACCEPTED = (Settled(Outcome.ACCEPTED), (Action.REPORT,))
RESEAL = (Queued(), (Action.REFRESH, Action.SEAL))
TRANSMIT = (InFlight(RESEND), (Action.TRANSMIT,))
REFUSED = (Settled(Outcome.REFUSED), (Action.REPORT,))
EXPIRED = (Settled(Outcome.EXPIRED), (Action.REPORT,))
CHANGES: dict[tuple[str, str], tuple[State, tuple[Action, ...]]] = {
    ("queued", "link opened"): (Queued(), (Action.SEAL,)),
    ("queued", "sealed"): TRANSMIT,
    ("queued", "expiry"): EXPIRED,
    ("queued", "removed"): REFUSED,
    ("sealed", "link opened"): TRANSMIT,
    ("sealed", "accepted"): ACCEPTED,
    ("in flight, due", "tick"): TRANSMIT,
    ("waiting, due", "tick"): TRANSMIT,
    ("accepted", "nack stale_key"): RESEAL,
}
for flying in ("in flight", "in flight, due"):
    CHANGES[flying, "link lost"] = (Sealed(), ())
    CHANGES[flying, "accepted"] = ACCEPTED
    CHANGES[flying, "stale_roster"] = RESEAL
    CHANGES[flying, "rate_limited"] = (Waiting(RETRY), ())
    CHANGES[flying, "unknown_peer"] = REFUSED
for waiting in ("waiting", "waiting, due"):
    CHANGES[waiting, "link lost"] = (Sealed(), ())
    CHANGES[waiting, "accepted"] = ACCEPTED
    CHANGES[waiting, "expiry"] = EXPIRED
    CHANGES[waiting, "removed"] = REFUSED

CLAIMS = [Claim(stage, witness) for stage, witness in product(Stage, Witness)]
ADMISSIBLE = [claim for claim in CLAIMS if delivery.is_admissible(claim)]


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)))
def test_a_submission_moves_as_the_table_says(state: str, event: str) -> None:
    """Every pair of state and event; a pair that the table does not name changes nothing."""
    expected = CHANGES.get((state, event), (STATES[state], ()))

    assert step(STATES[state], EVENTS[event], NOW) == expected


def test_a_settled_submission_stays_settled_but_for_one_nack() -> None:
    """N11: a recipient that repeats its nack causes one resend, not a thousand."""
    state: State = Settled(Outcome.ACCEPTED, resealed=True)

    for event in EVENTS.values():
        state, actions = step(state, event, NOW)
        assert actions == ()

    assert state == Settled(Outcome.ACCEPTED, resealed=True)


def test_a_retry_is_never_put_off_for_longer_than_the_limit() -> None:
    """A hostile broker cannot park a message for ever by a huge retry_after_ms."""
    state, _ = step(InFlight(LATER), BrokerRefused("mailbox_full", 10**12), NOW)

    assert state == Waiting(UnixMillis(NOW + delivery.RETRY_MAX_MS))


def test_nobody_can_claim_what_he_cannot_know() -> None:
    """The broker cannot say `delivered`, the recipient not `accepted`, the sender neither."""
    admissible = {(claim.stage, claim.witness) for claim in ADMISSIBLE}

    assert (Stage.DELIVERED, Witness.BROKER) not in admissible
    assert (Stage.READ, Witness.BROKER) not in admissible
    assert (Stage.ACCEPTED, Witness.PEER) not in admissible
    assert (Stage.DELIVERED, Witness.SENDER) not in admissible
    assert {stage for stage, _ in admissible} == set(Stage)


@pytest.mark.parametrize(("shown", "claim"), list(product([None, *ADMISSIBLE], CLAIMS)))
def test_what_is_shown_never_goes_backwards(shown: Claim | None, claim: Claim) -> None:
    """A claim either goes further or changes nothing, and an inadmissible one changes nothing."""
    after = advance(shown, claim)

    assert after in (shown, claim)
    if not delivery.is_admissible(claim):
        assert after == shown
    elif after != claim:
        assert shown is not None
        assert advance(claim, shown) == shown or delivery.rank(claim) == delivery.rank(shown)


def test_what_is_shown_depends_on_the_claims_and_not_on_their_order() -> None:
    """A receipt may overtake the broker's `accepted`."""
    claims = [
        Claim(Stage.QUEUED, Witness.SENDER),
        Claim(Stage.ACCEPTED, Witness.BROKER),
        Claim(Stage.DELIVERED, Witness.PEER),
        Claim(Stage.READ, Witness.PEER),
    ]

    for order in permutations(claims):
        shown = None
        for claim in order:
            shown = advance(shown, claim)
        assert shown == Claim(Stage.READ, Witness.PEER)


@pytest.mark.parametrize("shown", ADMISSIBLE)
def test_a_stage_implies_only_what_its_witness_proves(shown: Claim) -> None:
    """Refused by the broker is not delivered; expired here is not accepted; read is delivered."""
    implied = {stage for stage in Stage if reaches(shown, stage)}

    assert shown.stage in implied
    if shown.witness is Witness.PEER:
        assert {Stage.ACCEPTED, Stage.DELIVERED} <= implied
    else:
        assert Stage.DELIVERED not in implied
    assert (Stage.READ in implied) == (shown.stage in (Stage.READ, Stage.REPLIED))


def test_the_recipients_word_outranks_the_brokers() -> None:
    """A broker that calls a delivered message expired changes nothing."""
    delivered = Claim(Stage.DELIVERED, Witness.PEER)

    assert advance(delivered, Claim(Stage.EXPIRED, Witness.BROKER)) == delivered
    assert advance(Claim(Stage.EXPIRED, Witness.BROKER), delivered) == delivered
