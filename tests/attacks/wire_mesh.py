"""A mesh at the real broker, all of whose members are played by hand over real sockets."""

from claudemesh.crypto.invite import InviteLink
from claudemesh.protocol import messages
from claudemesh.protocol.handshake import make_claim
from claudemesh.protocol.limits import DAY_MS
from claudemesh.protocol.roster import Entry
from tests.attacks.clock import Clock
from tests.attacks.wire_member import WireMember, dialled


class WireMesh:
    """The owner, its log, and who was admitted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = Clock()
        self.owner = WireMember("alice", self.clock)
        self.entries: list[Entry] = []

    async def found(self) -> "WireMesh":
        """Create the mesh at the broker, as a founder does."""
        async with dialled(self.url) as link:
            challenge = await link.challenge()
            genesis = self.owner.genesis(challenge.broker)
            refusal = await link.append(genesis)
        assert refusal == "", refusal
        self._appended(genesis)
        return self

    async def extend(self, *entries: Entry) -> None:
        """Append valid entries as the owner."""
        async with self.owner.dial(self.url) as link:
            refusal = await link.append(*entries)
        assert refusal == "", refusal
        self._appended(*entries)

    async def invite(self, uses: int = 1, ttl_ms: int = DAY_MS) -> InviteLink:
        """A link of the owner."""
        link = self.owner.new_link(self.url)
        await self.extend(self.owner.invite(link, uses=uses, ttl_ms=ttl_ms))
        return link

    async def member(self, name: str) -> WireMember:
        """A member that has joined through a link."""
        member = WireMember(name, self.clock)
        state, refusal = await self.join(member, await self.invite())
        assert (state, refusal) == ("open", ""), refusal
        return member

    async def join(self, member: WireMember, link: InviteLink, at: int | None = None) -> tuple[str, str]:
        """Claim and append an admission; returns the invite's state and the refusal, "" when it was admitted."""
        async with dialled(self.url) as wire:
            challenge = await wire.challenge()
            claim = make_claim(challenge, link.invite_key(), link.mesh_prefix, self.clock())
            await wire.send(messages.Claim(c=claim))
            claimed = await wire.expect(messages.Claimed)
            member.follow(*self.entries[member.roster.seq + 1 :])
            admission = member.admission(link.invite_key(), at=at)
            refusal = await wire.append(admission)
        if refusal == "":
            self._appended(admission)
            member.follow(admission)
        return claimed.state, refusal

    async def catch_up(self) -> None:
        """Take over entries that somebody else appended."""
        self.entries = await log_of(self.owner, self.url)
        self.owner.follow(*self.entries[self.owner.roster.seq + 1 :])

    def _appended(self, *entries: Entry) -> None:
        self.entries += entries
        self.owner.follow(*self.entries[self.owner.roster.seq + 1 :])


async def refusal_of_append(member: WireMember, url: str, *entries: Entry) -> str:
    """What the broker answers when a member appends; "" when it takes the entries."""
    async with member.dial(url) as link:
        return await link.append(*entries)


async def length_of_log(member: WireMember, url: str) -> int:
    """How many entries the broker serves."""
    return len(await log_of(member, url))


async def log_of(member: WireMember, url: str) -> list[Entry]:
    """The first page of what the broker serves."""
    async with member.dial(url) as link:
        await link.send(messages.Sync(rid=77, seq=0))
        while (log := await link.expect(messages.Log)).rid != 77:
            pass
        return log.entries
