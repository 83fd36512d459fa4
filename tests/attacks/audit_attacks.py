"""Attacks on the audit log: the broker shows another one than it has acknowledged."""

import os
from collections.abc import Callable
from typing import Any

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.protocol import messages
from tests.attacks.clock import PATIENCE_S
from tests.attacks.hostile_link import HostileLink
from tests.attacks.hostile_store import AuditChain
from tests.attacks.real_peers import TEMPO
from tests.attacks.worlds import Outcome, Victim, World

Row = dict[str, Any]


def finding(victim: Victim) -> str:
    """The contradiction that a peer has kept against the broker, or ""."""
    found = victim.rows("SELECT code FROM audit_findings")
    return str(found[0][0]) if found else ""


def verified_rows(victim: Victim) -> int:
    """How many rows of the audit log a peer has checked."""
    found = victim.rows("SELECT n FROM audit_views")
    return int(found[0][0]) if found else 0


async def truncate(world: World) -> Outcome:
    """A45: the row of an acknowledged message is missing, and the checkpoint signs the shorter log."""
    return await _show_instead(world, lambda rows: rows[:-1])


async def truncate_to_nothing(world: World) -> Outcome:
    """A45: an empty log, with a checkpoint to match."""
    return await _show_instead(world, lambda rows: [])


async def rewrite_an_acknowledged_row(world: World) -> Outcome:
    """A45: the row says that somebody else has sent the message; all that follows is chained anew."""
    return await _show_instead(world, lambda rows: [row | {"actor_peer_id": "ab" * 8} for row in rows])


async def replace_an_acknowledged_row(world: World) -> Outcome:
    """A45: the last row is another event, so that numbers and length stay what they were."""
    return await _show_instead(
        world, lambda rows: [*rows[:-1], rows[-1] | {"event_type": "refuse", "metadata": {"reason": "limit"}}]
    )


async def add_a_field(world: World) -> Outcome:
    """A45: the broker notes more about people than the closed list has, from the start and well chained."""
    return await _note(world, {"metadata": {"ip": "x"}})


async def write_a_text_into_a_row(world: World) -> Outcome:
    """A45: a name where half a key belongs."""
    return await _note(world, {"target_peer_id": "the boss of bob"})


async def break_the_chain(world: World) -> Outcome:
    """A45: the newest row does not name the one before it."""
    return await _show_instead(world, lambda rows: [*rows[:-1], rows[-1] | {"prev_hash": "ab" * 32}], chained=False)


async def sign_with_another_key(world: World) -> Outcome:
    """A45: the honest log, and a checkpoint that the broker can disown."""
    return await _show_instead(world, lambda rows: rows, key=primitives.signing_key(os.urandom(32)))


async def rewrite_what_was_verified(world: World) -> Outcome:
    """A45: rows that the peer has checked before are changed; it only ever asks for what follows."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    await bob.peer.send(carol.id, "one")
    await bob.settled()
    await _first_check(world, bob)

    world.held.audit = _rechained(world.held.audit, [_as_row(row) | {"created_at": 1} for row in world.held.audit.rows])
    await bob.peer.send(carol.id, "two")
    await bob.settled()
    await _check_now(world, bob)
    await world.until(lambda: finding(bob), "bob finds the contradiction")

    return Outcome(finding(bob) == "", frozenset({finding(bob)}))


async def acknowledge_what_was_verified_differently(world: World, *, twice: bool = False) -> Outcome:
    """A45: a message is acknowledged by a row that the peer has checked before, with a hash that it never had.

    With `twice`, one row that is not checked yet is acknowledged with two hashes.
    """
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    await bob.settled()
    known = await _first_check(world, bob)

    def lie(link: HostileLink, frame: messages.BrokerMessage) -> tuple[messages.BrokerMessage, ...]:
        if not isinstance(frame, messages.Accepted):
            return (frame,)
        body = statements.decode(frame.st.b.encode())
        number = known if twice else known - 1
        body["r"] = [
            row | {"n": number, "h": row["h"] if twice and row["n"] == known else "cd" * 32} for row in body["r"]
        ]
        return (messages.Accepted(st=statements.sign_statement(body, "accept", world.broker.key)),)

    world.broker.lies.outgoing = lie
    for text in ("one", "two") if twice else ("one",):
        await bob.peer.send(carol.id, text)
        await bob.settled()
    await _check_now(world, bob)
    await world.chance(lambda: finding(bob), PATIENCE_S)
    return Outcome(finding(bob) == "", frozenset({finding(bob)}))


async def _first_check(world: World, bob: Victim) -> int:
    """Have bob check the log as it is; returns how many rows he has verified."""
    rows = len(world.held.audit.rows)
    await _check_now(world, bob)
    await world.until(lambda: verified_rows(bob) >= rows > 0, "bob checks the audit log")
    return verified_rows(bob)


async def _check_now(world: World, bob: Victim) -> None:
    """Let the time pass after which the next link begins with a check."""
    world.clock.advance(TEMPO.audit_ms)
    await world.broker.drop_links(bob.id)


async def _note(world: World, noted: Row) -> Outcome:
    """Write rows that say more than they may, and acknowledge messages by them."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    await bob.settled()
    await _first_check(world, bob)
    world.held.audit.noted = noted
    rows = len(world.held.audit.rows)
    await bob.peer.send(carol.id, "to be acknowledged")
    await bob.settled()
    await _check_now(world, bob)
    await world.until(lambda: verified_rows(bob) > rows or finding(bob), "bob checks the audit log")
    return Outcome(finding(bob) == "", frozenset({finding(bob)}))


async def _show_instead(
    world: World, lie: Callable[[list[Row]], list[Row]], *, chained: bool = True, key: SigningKey | None = None
) -> Outcome:
    """Acknowledge a message of bob's, then show him a log that was changed; success is that he is content."""
    bob, carol = await world.victim("bob"), world.member("carol")
    await world.announce()
    await bob.settled()
    answers = 0

    def tampered(link: HostileLink, frame: messages.BrokerMessage) -> tuple[messages.BrokerMessage, ...]:
        nonlocal answers
        if not isinstance(frame, messages.Audit):
            return (frame,)
        answers += 1
        true = world.held.audit
        rows = lie([_as_row(row) for row in true.rows])
        shown = _rechained(true, rows) if chained else AuditChain(true.mesh, [_text(row) for row in rows])
        checkpoint = shown.checkpoint(key or world.broker.key, world.clock())
        return (messages.Audit(rid=frame.rid, n=frame.n, rows=shown.rows[frame.n :], cp=checkpoint),)

    known = await _first_check(world, bob)
    await bob.peer.send(carol.id, "to be acknowledged")
    await bob.settled()
    world.broker.lies.outgoing = tampered
    await _check_now(world, bob)
    await world.until(lambda: answers >= 1, "bob asks for the audit log")
    await world.chance(lambda: finding(bob), 0.5)

    assert len(world.held.audit.rows) > known
    return Outcome(finding(bob) == "", frozenset({finding(bob)}))


def _rechained(chain: AuditChain, rows: list[Row]) -> AuditChain:
    """The rows as a log of their own, in which everything links up."""
    rebuilt = AuditChain(chain.mesh)
    for number, row in enumerate(rows):
        rebuilt.rows.append(_text(row | {"id": number, "prev_hash": rebuilt.head}))
    return rebuilt


def _as_row(text: str) -> Row:
    return statements.decode(text.encode())


def _text(row: Row) -> str:
    return statements.encode(row).decode()
