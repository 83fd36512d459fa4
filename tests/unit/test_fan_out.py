"""What a post or an epoch goes into is decided when its commit begins, by the roster of that moment."""

import asyncio

import msgspec
import pytest

from claudemesh.broker.directory import KnownAttestation, Mesh
from claudemesh.broker.fan_out import PendingFanOut
from claudemesh.broker.links import Link, Window
from claudemesh.broker.policy import Limits, link_bucket, request_bucket
from claudemesh.broker.store.base import LinkId, SharedKind
from claudemesh.crypto import identity
from claudemesh.errors import LocalError
from claudemesh.protocol.limits import DAY_MS
from claudemesh.types import ChannelId, PeerId, SessionId
from tests.rosters import START, Log, channel, family, key
from tests.unit.test_routing import Sink

DEPLOYS = ChannelId(channel("deploys"))
GRANTS = Limits()


def peer(name: str) -> PeerId:
    return PeerId(key(name).public)


@pytest.fixture
def log() -> Log:
    """Alice, Bob and Carol are in #deploys."""
    made = family()
    made.append("chan", "alice", chan=DEPLOYS, kind="private")
    for member in ("bob", "carol"):
        made.append("chan_add", "alice", chan=DEPLOYS, who=peer(member))
    return made


def pending(log: Log, kind: SharedKind = "post", slots: dict[PeerId, str] | None = None) -> PendingFanOut:
    """Something that Bob sealed for the roster as it is now."""
    assert log.roster.mesh is not None
    mesh = Mesh(log.roster.mesh, log.roster, {})
    statement = identity.attest(key("bob"), mesh.id, identity.session_keys(bytes(64)), START, DAY_MS)
    attestation = KnownAttestation(identity.open_attestation(statement), msgspec.json.encode(statement))
    link = Link(
        id=LinkId(1),
        mesh=mesh.id,
        peer=peer("bob"),
        session=SessionId("s"),
        outlet=Sink(),
        window=Window(4, 1_000),
        messages=link_bucket(GRANTS, START),
        requests=request_bucket(GRANTS, START),
        heard_at=START,
    )
    return PendingFanOut(
        link=link,
        mesh=mesh,
        kind=kind,
        channel=DEPLOYS,
        id="01" * 16,
        priority="next",
        roster_seq=log.roster.seq,
        attestation=attestation,
        payload=b"{}",
        size=2,
        expires_at=START,
        slots=slots or {},
    )


def test_nothing_objects_while_the_members_stay_the_same(log: Log) -> None:
    """Not even to a roster that grows by what does not concern the channel."""
    post = pending(log)
    log.invite("alice", "another invite")

    assert post.recheck() is None
    assert set(post.recipients()) == {peer("alice"), peer("carol")}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("chan_del", "alice", {"chan": DEPLOYS, "who": "carol"}), "stale_roster"),
        (("chan_add", "alice", {"chan": DEPLOYS, "who": "adam"}), "stale_roster"),
        (("revoke", "alice", {"who": "carol", "why": "lost"}), "stale_roster"),
        (("chan_del", "alice", {"chan": DEPLOYS, "who": "bob"}), "invalid"),
        (("revoke", "alice", {"who": "bob", "why": "lost"}), "invalid"),
    ],
)
def test_what_was_admitted_is_refused_when_the_members_changed_before_its_commit(
    log: Log, change: tuple[str, str, dict[str, str]], code: str
) -> None:
    """Between admission and commit there is time for an entry; none of it is a window for a stale post."""
    post, epoch = pending(log), pending(log, "epoch", {peer("alice"): "a", peer("bob"): "b", peer("carol"): "c"})
    op, by, fields = change
    log.append(op, by, **{**fields, "who": peer(fields["who"])})

    refusals = [one.recheck() for one in (post, epoch)]

    assert [refusal.code for refusal in refusals if refusal is not None] == [code] * 2


def test_epoch_is_for_those_that_it_has_slots_for(log: Log) -> None:
    """Its author among them: after a crash its own mailbox says that the epoch was stored."""
    epoch = pending(log, "epoch", {peer("alice"): "a", peer("bob"): "b"})

    assert [one.peer for one in epoch.mailboxes()] == [peer("alice"), peer("bob")]


async def test_who_waits_for_an_epoch_is_told_once(log: Log) -> None:
    """Also when it does not wait any more."""
    stored, failed, gone = (pending(log, "epoch") for _ in range(3))
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for one, future in zip((stored, failed, gone), futures, strict=True):
        one.published = future

    futures[2].cancel()
    for one in (stored, gone):
        one.settle()
    failed.settle(LocalError("disk"))
    stored.settle(LocalError("disk"))

    assert futures[0].result() is None
    assert isinstance(futures[1].exception(), LocalError)
    assert futures[2].cancelled()
