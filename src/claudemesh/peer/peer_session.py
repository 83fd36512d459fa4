"""A session of this peer as its agent has it: what it was shown, what others are told of it, its end (docs/sdk.md)."""

import contextlib
from collections.abc import AsyncIterator, Iterable

from claudemesh.peer import contents
from claudemesh.peer.correspondence import Correspondent
from claudemesh.peer.offering import OfferBook
from claudemesh.peer.parts import Parts
from claudemesh.peer.views import Received
from claudemesh.protocol import chains
from claudemesh.protocol.chains import Cause, Chain
from claudemesh.protocol.messages import Status
from claudemesh.types import MessageId, SessionId


class PeerSession(Correspondent):
    """A session of this peer, with keys of its own: one for each agent that runs under it."""

    def __init__(self, parts: Parts, session: SessionId, label: str) -> None:
        super().__init__(parts, session)
        self.id = session
        self.label = label
        self._cause: Cause | None = None
        self.offers = OfferBook(parts, session, self._reader.show)
        """What was put before the agent that speaks as this session."""

    async def messages(self) -> AsyncIterator[Received]:
        """As of any reader; what it yields counts as shown."""
        async with contextlib.aclosing(self._reader.messages()) as messages:
            async for message in messages:
                self.shown(message)
                yield message

    def shown(self, *messages: Received) -> None:
        """These were put before the agent: what it writes from now on continues the deepest conversation among them."""
        causes = [message.cause for message in messages]
        self._cause = chains.deepest(causes if self._cause is None else [self._cause, *causes])

    def begin_turn(self) -> None:
        """The agent's own user spoke to it: what it writes from now on is because of that."""
        self._cause = None

    def _unprompted_chain(self, message_id: MessageId) -> Chain | None:
        return chains.begin(message_id) if self._cause is None else chains.answer(self._cause)

    def _saw(self, message: Received) -> None:
        self.shown(message)

    async def set_status(self, status: Status) -> None:
        """Say in presence whether the session is `idle`, `busy` or `away`; a tag reaches idle sessions first."""
        session = self._parts.sessions.get(self.id)
        if session is not None and session.status != status:
            session.status = status
            await self._parts.uplink.set_status(self.id, status)

    def describe(
        self, *, reach: str | None = None, about: str | None = None, tags: Iterable[str] | None = None
    ) -> None:
        """Tell the other peers how a message reaches this session, what it works at, and what it is good for.

        Args:
            reach: `wakeable`, `tool`, `turn` or `asked`; None leaves it as it is, as with the others.
            about: One line of up to 120 characters.
            tags: Up to 16 of the form `key=value`.

        Raises:
            UsageError: One of them cannot be told; nothing changed.
        """
        session = self._parts.sessions.get(self.id)
        if session is None:
            return
        told = (
            session.reach if reach is None else reach,
            session.about if about is None else contents.require_about(about),
            session.tags if tags is None else contents.require_tags(tags),
        )
        if told != (session.reach, session.about, session.tags):
            session.reach, session.about, session.tags = told
            self._parts.names.announce()

    async def close(self) -> None:
        """End the session: it leaves presence, and its keys are forgotten."""
        self._parts.sessions.close(self.id)
        self._parts.names.announce()
        await self._parts.uplink.end_session(self.id)
