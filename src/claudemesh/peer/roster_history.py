"""The roster as a readable history: who admitted whom, by which invite, who removed whom (docs/spec/roster.md §2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from claudemesh.peer.parts import Parts
from claudemesh.protocol.roster import Entry, Roster, entry_digest
from claudemesh.protocol.roster_entry import read_entry
from claudemesh.types import ChannelId, Digest, InviteId, PeerId, UnixMillis, UserId

_SHORT: Final = 8


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One entry of the roster, with names beside keys."""

    seq: int
    at: UnixMillis
    """By the author's clock; the roster's own time never goes back."""
    op: str
    text: str
    """What happened, in words. Names in it are what peers call themselves."""
    by: str
    """Key of the author: a peer, an invite (`admit`) or the recovery key (`recover`)."""
    by_address: str
    """Empty where the author is no peer."""
    who: str
    """Key of whom or what it is about; empty where that is the mesh."""
    who_address: str
    invite: str
    """The invite that it is about or that admitted somebody."""
    signers: tuple[str, ...]
    """The keys whose signatures were verified."""
    head: Digest
    """The head of the roster after it."""


def tell(parts: Parts, from_seq: int = 0) -> list[HistoryEntry]:
    """The history from entry `from_seq` on, the oldest first."""
    membership = parts.membership
    teller = _Teller(membership.roster, parts.names.address_of, parts.channels.directory.address_of)
    return [teller.entry(entry) for entry in membership.entries(from_seq)]


class _Teller:
    """Puts entries into words."""

    def __init__(
        self, roster: Roster, address_of: Callable[[PeerId], str], channel_of: Callable[[ChannelId], str]
    ) -> None:
        self._roster = roster
        self._address_of = address_of
        self._channel_of = channel_of

    def entry(self, entry: Entry) -> HistoryEntry:
        body = read_entry(entry)
        who = self._who(body)
        return HistoryEntry(
            seq=body["seq"],
            at=body["at"],
            op=body["op"],
            text=self._text(body),
            by=body["by"],
            by_address=self._peer(body["by"]),
            who=who,
            who_address=self._peer(who),
            invite=body["by"] if body["op"] == "admit" else body.get("inv", ""),
            signers=tuple(entry.s),
            head=entry_digest(entry),
        )

    def _who(self, body: dict[str, Any]) -> str:
        if "m" in body:
            return str(body["m"]["sign"])
        return str(body.get("who", ""))

    def _text(self, body: dict[str, Any]) -> str:
        by, who = self._name(body["by"]), self._name(self._who(body))
        match body["op"]:
            case "genesis":
                return f"{who} created the mesh" + (", with a recovery key" if "rec" in body else "")
            case "invite":
                return f"{by} made invite {self._invite(body)}"
            case "uninvite":
                return f"{by} closed invite {body['inv'][:_SHORT]}"
            case "admit":
                return f"{who} joined by invite {body['by'][:_SHORT]} of {self._issuer(body['by'])}"
            case "revoke" if body["who"] == body["by"]:
                return f"{by} left"
            case "revoke":
                return f"{by} removed {self._removed(body['who'])} ({body['why']})"
            case "rekey":
                return f"{by} replaced its box key: cards below {body['cs']} are void"
            case "role":
                return f"{by} made {who} {_article(body['role'])}"
            case "recover":
                return f"the recovery key made {who} the owner; all owners, admins and open invites before it ended"
            case "broker":
                return f"{by} named broker {body['bk'][:_SHORT]}" + (f" at {body['url']}" if "url" in body else "")
            case _:
                return self._channel(body, by, who)

    def _channel(self, body: dict[str, Any], by: str, who: str) -> str:
        channel = self._channel_of(ChannelId(body["chan"]))
        match body["op"]:
            case "chan":
                what = "group" if body["kind"] == "group" else f"{body['kind']} channel"
                return f"{by} created {what} {channel}"
            case "chan_add":
                return f"{by} joined {channel}" if by == who else f"{by} added {who} to {channel}"
            case _:
                return f"{by} left {channel}" if by == who else f"{by} took {who} out of {channel}"

    def _invite(self, body: dict[str, Any]) -> str:
        times = "once" if body["uses"] == 1 else f"{body['uses']} times"
        whom = "for anybody"
        if "user" in body:
            issuer = self._roster.members[PeerId(body["by"])]
            whom = "for own devices" if body["user"] == issuer.user else f"for user {body['user'][:_SHORT]}"
        return f"{body['inv'][:_SHORT]}: {whom}, as {body['role']}, {times}"

    def _issuer(self, invite: str) -> str:
        known = self._roster.invites.get(InviteId(invite))
        return self._name(known.issuer) if known is not None else "nobody"

    def _removed(self, who: str) -> str:
        if PeerId(who) in self._roster.members:
            return self._name(who)
        peers = [member.id for member in self._roster.members.values() if member.user == UserId(who)]
        names = sorted({self._name(peer) for peer in peers})
        return f"user {who[:_SHORT]} with every device ({', '.join(names)})"

    def _name(self, key: str) -> str:
        return self._peer(key) or key[:_SHORT]

    def _peer(self, key: str) -> str:
        return self._address_of(PeerId(key)) if PeerId(key) in self._roster.members else ""


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
