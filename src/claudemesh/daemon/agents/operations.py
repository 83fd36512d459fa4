"""What hook processes of a host ask of the registry (docs/spec/ipc.md §5, `agent.…`)."""

from claudemesh.daemon.agents.composing import REPLY_TOOL
from claudemesh.daemon.agents.news import Waiting
from claudemesh.daemon.agents.registry import Agents
from claudemesh.daemon.agents.session import AgentSession, status_of
from claudemesh.daemon.agents.taking import Taken
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.schema import agents as schema
from claudemesh.daemon.schema.base import Done, NoArgs
from claudemesh.errors import UsageError


class AgentOperations:
    """Operations on the sessions of agents."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def open(self, args: schema.AgentOpenArgs, reply: Reply) -> schema.Agent:
        """Open a session, or find it open."""
        return await _agent(await self._opened(args))

    async def take(self, args: schema.AgentTakeArgs, reply: Reply) -> schema.AgentTaken:
        """Take what may be shown now."""
        session = await self._opened(args)
        if args.moment == "session_start":
            await session.doubt_handed()
        elif args.confirm:
            await session.confirm_handed(args.confirm)
        drawn = args.reply or REPLY_TOOL
        if args.message:
            taken = await session.take_message(args.message, args.adapter, args.limit_characters, reply=drawn)
        else:
            taken = await session.take(args.moment, args.adapter, args.limit_characters, reply=drawn)
            if args.moment == "idle_wake" and taken.ids:
                session.wake()  # a host that does not report it as a prompt loses nothing but one beginning
        return _taken(taken)

    async def take_back(self, args: schema.AgentTakeArgs, answer: schema.AgentTaken) -> None:
        """Nobody was there to hear the answer: it was shown to nobody."""
        session = self._agents.find(args.host, args.key)
        if session is not None:
            await session.withdraw([one.offer for one in answer.offers if one.offer])

    async def handed(self, args: schema.AgentOffersArgs, reply: Reply) -> Done:
        """The host was given offers."""
        await self._found(args).handed(args.offers)
        return Done()

    async def confirm(self, args: schema.AgentConfirmArgs, reply: Reply) -> Done:
        """Offers are in the model's context."""
        await self._found(args).confirm(args.offers, args.evidence)
        return Done()

    async def withdraw(self, args: schema.AgentOffersArgs, reply: Reply) -> Done:
        """Offers were surely not shown."""
        await self._found(args).withdraw(args.offers)
        return Done()

    async def status(self, args: schema.AgentStatusArgs, reply: Reply) -> schema.Agent:
        """Change what is said of a session, and say what holds."""
        session = self._found(args)
        await session.describe(about=args.about, tags=args.tags, reach=args.reach or None)
        if args.dnd is not None:
            await session.set_dnd(args.dnd)
        if args.status:
            await session.set_status(status_of(args.status))
        return await _agent(session)

    async def close(self, args: schema.AgentArgs, reply: Reply) -> Done:
        """End a session; one that is not open is closed already."""
        session = self._agents.find(args.host, args.key)
        if session is not None:
            await self._agents.close(session)
        return Done()

    async def list(self, args: NoArgs, reply: Reply) -> schema.AgentList:
        """Every open session."""
        return schema.AgentList(agents=[await _agent(one) for one in self._agents.sessions()])

    async def news(self, args: schema.AgentArgs, reply: Reply) -> Done:
        """Report what waits for a session, until it is closed or the other end hangs up."""
        async for news in self._found(args).news():
            waiting = _waiting(news.waiting)
            await reply.event(schema.AgentNews(waiting=waiting, interrupts=news.interrupts, wakes=news.wakes))
        return Done()

    async def _opened(self, args: schema.AgentOpenArgs) -> AgentSession:
        return await self._agents.open(
            args.host, args.key, cwd=args.cwd, label=args.label, mesh=args.mesh, tags=args.tags, reach=args.reach
        )

    def _found(self, args: schema.AgentArgs) -> AgentSession:
        session = self._agents.find(args.host, args.key)
        if session is None:
            raise UsageError("usage", "no such session is open: agent.open opens it")
        return session


async def _agent(session: AgentSession) -> schema.Agent:
    return schema.Agent(
        host=session.host,
        key=session.key,
        label=session.label,
        addresses=session.addresses(),
        status=session.status,
        reach=session.reach,
        dnd=session.is_dnd,
        about=session.about,
        tags=list(session.tags),
        waiting=_waiting(await session.waiting()),
        doubtful=[
            schema.DoubtfulOffer(offer=row.id, number=row.message, adapter=row.adapter, offered_at=row.offered_at)
            for row in await session.doubtful()
        ],
    )


def _waiting(waiting: Waiting) -> schema.WaitingMessages:
    return schema.WaitingMessages(now=waiting.now, next=waiting.next, low=waiting.low, doubtful=waiting.doubtful)


def _taken(taken: Taken) -> schema.AgentTaken:
    offers = [
        schema.OfferedMessage(
            offer=one.id,
            id=one.message_id,
            mesh=one.mesh,
            sender=one.sender,
            priority=one.priority,
            whole=one.is_whole,
        )
        for one in taken.offers
    ]
    return schema.AgentTaken(text=taken.text, offers=offers, waiting=taken.waiting)
