"""What becomes of offers that left no sign yet, once a host's record of the conversation was looked at."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from claudemesh.daemon.agents import AgentSession
from claudemesh.hosts.records import Finding, findings
from claudemesh.types import UnixMillis

OpenOffers = dict[int, tuple[str, UnixMillis]]
"""Message and time of each offer."""


async def open_offers(session: AgentSession, host: str) -> OpenOffers:
    """The offers that were made through the host's own ways and left no sign yet."""
    found: OpenOffers = {}
    for face, _ in session.faces.values():
        rows = [row for row in await face.session.offers.open_offers(session.agent) if row.adapter.startswith(host)]
        messages = {one.number: one.id for one in await face.session.offers.load({row.message: None for row in rows})}
        found |= {row.id: (messages[row.message], row.offered_at) for row in rows if row.message in messages}
    return found


async def settle_by_record(
    session: AgentSession, host: str, record: str, *, begins: bool = False, has_answered: bool = False
) -> bool:
    """Look into the host's record, and conclude from it what there is to conclude.

    Args:
        record: The file that the host named; empty when it named none.
        begins: Whether the host begins with this conversation, so that the record is all that it has of it.
        has_answered: Whether the host says that its model has answered everything that stands there.

    Returns:
        Whether there was a record, or nothing to look for.
    """
    offers = await open_offers(session, host)
    if not offers or not record:
        return not offers
    said = await asyncio.to_thread(findings, host, Path(record), _since(offers))
    if said is None:
        return False
    if has_answered:
        said = {one: "answered" if finding == "present" else finding for one, finding in said.items()}
    await settle(session, offers, said, withdraws=begins)
    return True


async def settle(session: AgentSession, offers: OpenOffers, said: Mapping[str, Finding], *, withdraws: bool) -> None:
    """Confirm what the model has answered, and take back what will never be before it.

    Args:
        offers: As `open_offers` gave them.
        said: What the record holds of each message; nothing of one that it does not have.
        withdraws: Whether what is not in the record was surely not shown, and never will be by these offers.
    """

    def which(*wanted: Finding) -> list[int]:
        return [offer for offer, (message, _) in offers.items() if said.get(message, "absent") in wanted]

    await session.confirm(which("answered"), "transcript")
    if withdraws:
        await session.handed(which("present"))
    lost = which("absent", "abandoned") if withdraws else which("abandoned")
    if lost:
        await session.withdraw(lost)


def _since(offers: OpenOffers) -> dict[str, UnixMillis]:
    """The time of each message's first open offer."""
    since: dict[str, UnixMillis] = {}
    for message, offered_at in offers.values():
        since[message] = min(offered_at, since.get(message, offered_at))
    return since
