"""What becomes of offers that left no sign yet, once a host's record of the conversation was looked at."""

from collections.abc import Mapping

from claudemesh.daemon.agents import AgentSession
from claudemesh.hosts.transcripts import Finding


async def open_offers(session: AgentSession, host: str) -> dict[int, str]:
    """The offers that were made through the host's own ways and left no sign yet, with the ids of their messages."""
    found: dict[int, str] = {}
    for face, _ in session.faces.values():
        rows = [row for row in await face.session.offers.open_offers(session.agent) if row.adapter.startswith(host)]
        messages = {one.number: one.id for one in await face.session.offers.load({row.message: None for row in rows})}
        found |= {row.id: messages[row.message] for row in rows if row.message in messages}
    return found


async def settle(
    session: AgentSession, found: Mapping[int, str], said: Mapping[str, Finding], *, withdraws: bool
) -> None:
    """Confirm what the model has answered.

    Args:
        found: As `open_offers` gave them.
        said: What the record holds of each message; nothing of one that it does not have.
        withdraws: Whether what is not in the record was surely not shown, and never will be by these offers.
    """
    await session.confirm([offer for offer, one in found.items() if said.get(one) == "answered"], "transcript")
    if withdraws:
        await session.handed([offer for offer, one in found.items() if said.get(one) == "present"])
        await session.withdraw([offer for offer, one in found.items() if said.get(one, "absent") == "absent"])
