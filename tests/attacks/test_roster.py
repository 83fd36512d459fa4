"""What a broker or member cannot do to membership, against real peers on real sockets."""

from claudemesh.crypto.primitives import SigningKey
from tests.attacks import roster_attacks
from tests.attacks.worlds import World


async def test_a01_broker_cannot_admit_a_ghost(theatre: World) -> None:
    """A01: expected `sig_missing`, `bad_sig`."""
    outcome = await roster_attacks.admit_a_ghost(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"sig_missing", "bad_sig"}


async def test_a02_broker_cannot_splice_in_an_admission_of_another_mesh(theatre: World) -> None:
    """A02: expected `prev` (or `seq`, `mesh`): an entry is valid on one head of one mesh."""
    outcome = await roster_attacks.splice_an_admission_of_another_mesh(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"prev"}


async def test_a03_broker_cannot_stretch_the_uses_of_a_link(theatre: World) -> None:
    """A03: expected `denied` by every verifier."""
    outcome = await roster_attacks.exceed_the_uses_of_a_link(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"denied invite_exhausted"}


async def test_a04_broker_cannot_keep_a_link_alive(theatre: World) -> None:
    """A04: expected `denied`, and `time_back` for who lies about the time."""
    outcome = await roster_attacks.use_an_expired_or_revoked_link(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"denied invite_expired", "time_back", "denied invite_revoked"}


async def test_a04_an_expired_link_stays_dead_where_nothing_else_happens(theatre: World) -> None:
    """A04: expected `time_back`: an administrator's peer closes the link, which moves the clock of the log."""
    outcome = await roster_attacks.bring_an_expired_link_back(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"time_back"}


async def test_a08_a_peer_that_is_kept_stale_is_warned(theatre: World) -> None:
    """A08: it cannot be stopped where nobody newer writes; but the head grows old, and that shows."""
    outcome = await roster_attacks.keep_a_peer_stale(theatre)

    assert not outcome.succeeded


async def test_a05_broker_cannot_answer_a_link_with_its_own_mesh(theatre: World) -> None:
    """A05: expected `wrong_mesh`; its own grant lacks the invite's signature: `sig_missing`."""
    outcome = await roster_attacks.sell_ones_own_mesh(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"wrong_mesh", "sig_missing"}


async def test_a05_broker_cannot_serve_its_own_mesh_under_the_right_name(theatre: World) -> None:
    """A05: expected `wrong_mesh`: the name is the hash of the first entry."""
    outcome = await roster_attacks.sell_ones_own_mesh_and_keep_the_name(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"wrong_mesh"}


async def test_a06_peer_gives_back_what_a_restored_broker_lost(theatre: World) -> None:
    """A06: the log is healed by re-upload, and nobody freezes."""
    outcome = await roster_attacks.lose_the_tail_of_the_log(theatre)

    assert not outcome.succeeded
    assert outcome.codes == set()


async def test_a06_broker_cannot_roll_back(theatre: World) -> None:
    """A06: expected freeze `rollback`."""
    outcome = await roster_attacks.roll_the_log_back(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"rollback"}


async def test_a06_broker_cannot_rewrite(theatre: World) -> None:
    """A06: expected freeze `rollback`: it signed another entry in the same place."""
    outcome = await roster_attacks.rewrite_the_last_entry(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"rollback"}


async def test_a07_fork_is_exposed_by_the_first_message_that_crosses_it(theatre: World) -> None:
    """A07: expected freeze `fork` on both sides, with transferable proof; sends are refused."""
    outcome = await roster_attacks.fork_two_peers(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"fork"}
    for victim in theatre.victims:
        assert roster_attacks.proves_a_contradiction(victim.proof, theatre.broker.key.public)


async def test_a08_broker_cannot_withhold_a_revocation_from_a_peer_that_gets_mail(theatre: World) -> None:
    """A08: expected freeze `withheld` on the first message from a newer peer."""
    outcome = await roster_attacks.withhold_a_revocation(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"withheld"}


async def test_a25_member_cannot_escalate(theatre: World) -> None:
    """A25: expected `denied`, and `sig_missing` for an entry in the owner's name."""
    outcome = await roster_attacks.escalate(theatre)

    assert not outcome.succeeded
    assert {code.split()[0] for code in outcome.codes} == {"denied", "sig_missing"}


async def test_a25_admin_cannot_escalate(theatre: World) -> None:
    """A25: expected `denied`."""
    outcome = await roster_attacks.escalate(theatre, admin=True)

    assert not outcome.succeeded
    assert {code.split()[0] for code in outcome.codes} == {"denied"}


async def test_a26_the_links_of_a_revoked_admin_are_dead(theatre: World) -> None:
    """A26: expected `denied` for the admission and the thief's own acts, `invite_revoked` for who tries the link."""
    outcome = await roster_attacks.use_the_links_of_a_revoked_admin(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"denied invite_revoked", "denied rank", "invite_revoked"}


async def test_a33_recovery_words_end_the_theft_of_the_owners_device(theatre: World, recovery: SigningKey) -> None:
    """A33: thief, its admin and its links are out; the others stay; expected `not_a_member` and `denied`."""
    outcome = await roster_attacks.steal_the_owners_device(theatre, recovery)

    assert not outcome.succeeded
    assert outcome.codes == {"not_a_member", "denied invite_revoked"}


async def test_a41_member_cannot_move_the_logs_clock(theatre: World) -> None:
    """A41: expected `future_entry`."""
    outcome = await roster_attacks.date_an_entry_far_ahead(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"future_entry"}


async def test_a42_device_links_are_no_back_door(theatre: World) -> None:
    """A42: at most 5, only of the same user, and gone with it; expected `denied`."""
    outcome = await roster_attacks.make_a_back_door_of_device_links(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"denied uses", "denied device_allowance", "denied user", "denied invite_revoked"}


async def test_a46_broker_cannot_replace_its_own_key(theatre: World) -> None:
    """A46: expected `broker_key`, and nothing is said to it."""
    outcome = await roster_attacks.replace_the_brokers_key(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"broker_key"}


async def test_a46_broker_cannot_sign_heads_with_another_key(theatre: World) -> None:
    """A46: expected `stmt`; the head that is shown to others stays the honest one."""
    outcome = await roster_attacks.sign_heads_with_another_key(theatre)

    assert not outcome.succeeded
    assert outcome.codes == {"stmt"}


async def test_a46_owner_can_replace_the_brokers_key(theatre: World) -> None:
    """A46: control: with the owner's entry the peer follows to the new key."""
    bob = await theatre.victim("bob")

    await roster_attacks.move_to_a_new_key(theatre)
    await theatre.broker.drop_links(bob.id)
    await theatre.broker.connected(bob.id)
    await theatre.probe(bob)

    assert bob.roster().broker == theatre.broker.key.public
