"""Addresses become keys, or an error that helps; they are never guessed."""

import pytest

from claudemesh.errors import AddressError
from claudemesh.peer.addressing import KnownPeer, KnownSession, Target, resolve, shortest_addresses
from claudemesh.types import PeerId, SessionId, UserId

ALICE, BOB, MALLORY = UserId("a0" * 32), UserId("b0" * 32), UserId("c0" * 32)
LAPTOP = KnownPeer(PeerId("1a" * 32), ALICE, "alice", "laptop", (KnownSession(SessionId("5a" * 32), "payments-api"),))
PHONE = KnownPeer(PeerId("1b" * 32), ALICE, "alice", "phone")
DESK = KnownPeer(
    PeerId("2a" * 32),
    BOB,
    "bob",
    "desk",
    (KnownSession(SessionId("6a" * 32), "web"), KnownSession(SessionId("6b" * 32), "api")),
    online=True,
)
NAMELESS = KnownPeer(PeerId("3a" * 32), MALLORY)
PEERS = [LAPTOP, PHONE, DESK, NAMELESS]
BEARERS = {"alice": frozenset({ALICE}), "bob": frozenset({BOB})}


def look_up(
    address: str, peers: list[KnownPeer] = PEERS, bearers: dict[str, frozenset[UserId]] = BEARERS, own: PeerId = DESK.id
) -> Target:
    return resolve(address, peers, bearers, own)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("alice", Target((LAPTOP.id, PHONE.id))),
        (" alice ", Target((LAPTOP.id, PHONE.id))),
        ("alice.laptop", Target((LAPTOP.id,))),
        ("alice.laptop/payments-api", Target((LAPTOP.id,), LAPTOP.sessions[0].id)),
        ("alice/payments-api", Target((LAPTOP.id,), LAPTOP.sessions[0].id)),
        ("payments-api", Target((LAPTOP.id,), LAPTOP.sessions[0].id)),
        ("/web", Target((DESK.id,), DESK.sessions[0].id)),
        ("phone", Target((PHONE.id,))),
        ("phone/nothing", None),
        ("1a1a1a1a", Target((LAPTOP.id,))),
        ("1A1A1A1A1A", Target((LAPTOP.id,))),
        ("a0a0a0a0", Target((LAPTOP.id, PHONE.id))),
        ("5a5a5a5a", Target((LAPTOP.id,), LAPTOP.sessions[0].id)),
        ("2a2a2a2a/api", Target((DESK.id,), DESK.sessions[1].id)),
        ("3a3a3a3a", Target((NAMELESS.id,))),
    ],
)
def test_each_form_of_an_address_means_one_thing(address: str, target: Target | None) -> None:
    """The forms of docs/glossary.md, long and short."""
    if target is None:
        with pytest.raises(AddressError):
            look_up(address)
        return

    assert look_up(address) == target


def test_a_user_means_its_other_peers_to_itself() -> None:
    """`bob` written on bob's only device is that device; on one of two, it is the other."""
    assert look_up("alice", own=LAPTOP.id) == Target((PHONE.id,))
    assert look_up("bob", own=DESK.id) == Target((DESK.id,))


@pytest.mark.parametrize(
    "address", ["", "  ", "carol", "1a1a1a1", "alice.desktop", "#deploys", "@all", "tag:a=b", "zzzzzzzz"]
)
def test_what_means_nothing_is_unknown(address: str) -> None:
    """Seven digits are no key, and a channel is no peer."""
    with pytest.raises(AddressError) as caught:
        look_up(address)

    assert caught.value.code == "unknown_address"


def test_an_unknown_name_lists_the_nearest() -> None:
    """What a person probably meant, which is not taken for what he wrote."""
    with pytest.raises(AddressError, match="alice"):
        look_up("alcie")
    with pytest.raises(AddressError, match="payments-api"):
        look_up("payment-api")


def test_two_sessions_of_one_label_are_ambiguous() -> None:
    """The candidates are listed with their presence."""
    other = KnownPeer(PHONE.id, ALICE, "alice", "phone", (KnownSession(SessionId("7a" * 32), "web"),))

    with pytest.raises(AddressError, match=r"alice\.phone/web.*offline.*bob\.desk/web.*online") as caught:
        look_up("web", [LAPTOP, other, DESK])

    assert caught.value.code == "ambiguous_address"


def test_a_device_and_a_session_of_one_name_are_ambiguous() -> None:
    """A short form stands for one thing or for none."""
    other = KnownPeer(PHONE.id, ALICE, "alice", "web")

    with pytest.raises(AddressError, match="ambiguous"):
        look_up("web", [other, DESK])


@pytest.mark.parametrize("address", ["alice", "alice.laptop", "alice.desktop", "alice/payments-api", "alice.laptop/x"])
def test_a_name_that_two_users_bear_addresses_neither(address: str) -> None:
    """Nor does any longer form of it: whoever takes a name chooses a device name, too. A key still does."""
    impostor = KnownPeer(PeerId("3b" * 32), MALLORY, "alice", "desktop")
    bearers = BEARERS | {"alice": frozenset({ALICE, MALLORY})}

    with pytest.raises(AddressError) as caught:
        look_up(address, [*PEERS, impostor], bearers)

    assert caught.value.code == "ambiguous_address"
    assert look_up(LAPTOP.id[:8], [*PEERS, impostor], bearers) == Target((LAPTOP.id,))


def test_a_name_is_not_inherited_in_silence() -> None:
    """When the first alice has left, a newcomer of that name is ambiguous with the memory of her."""
    newcomer = KnownPeer(PeerId("3b" * 32), MALLORY, "alice", "desktop")
    bearers = {"alice": frozenset({ALICE, MALLORY})}

    with pytest.raises(AddressError, match="before"):
        look_up("alice", [newcomer, DESK], bearers)


def test_the_shortest_address_means_exactly_its_peer() -> None:
    """By name where that is clear, else by key."""
    addresses = shortest_addresses(PEERS, BEARERS)

    assert addresses == {LAPTOP.id: "alice.laptop", PHONE.id: "alice.phone", DESK.id: "bob.desk", NAMELESS.id: "3a" * 8}
    for peer, address in addresses.items():
        assert look_up(address) == Target((peer,))


def test_a_name_that_is_not_clear_is_no_address() -> None:
    """Two users bear it, or one user has two devices of one name."""
    contested = shortest_addresses(PEERS, {"alice": frozenset({ALICE, MALLORY})})
    twins = shortest_addresses([LAPTOP, KnownPeer(PHONE.id, ALICE, "alice", "laptop")], BEARERS)

    assert contested[LAPTOP.id] == LAPTOP.id[:16]
    assert set(twins.values()) == {LAPTOP.id[:16], PHONE.id[:16]}
