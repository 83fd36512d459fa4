"""The roster's rules told once more, as questions about the whole history and nothing else.

Written from docs/spec/roster.md, not from the code that it is compared with: no state is kept, so
each answer walks through every entry.
"""

from typing import Any

HOUR = 3_600_000
SKEW = 300_000
RANK = {"member": 1, "admin": 2, "owner": 3}
BUILT_IN = ("0" * 32, "0" * 31 + "1", "0" * 31 + "2")
Body = dict[str, Any]


class NaiveRoster:
    """The accepted entries, in order; entry `n` has seq `n`."""

    def __init__(self) -> None:
        self.history: list[Body] = []

    @property
    def end(self) -> int:
        return len(self.history) - 1

    def of(self, *ops: str, until: int | None = None) -> list[Body]:
        upto = self.end if until is None else until
        return [body for body in self.history[: upto + 1] if body["op"] in ops]

    def time(self, seq: int) -> int:
        return max((body["at"] for body in self.history[: seq + 1]), default=0)

    # Peers

    def admission(self, peer: str, until: int | None = None) -> Body | None:
        entries = self.of("genesis", "admit", "recover", until=until)
        return next((body for body in entries if body["m"]["sign"] == peer), None)

    def peers(self, until: int | None = None) -> list[str]:
        return [body["m"]["sign"] for body in self.of("genesis", "admit", "recover", until=until)]

    def user(self, peer: str) -> str:
        admission = self.admission(peer)
        assert admission is not None
        return str(admission["m"]["user"])

    def role_given(self, peer: str, seq: int) -> str:
        admission = self.admission(peer)
        assert admission is not None
        changes = [body["role"] for body in self.of("role", until=seq) if body["who"] == peer]
        if changes:
            return str(changes[-1])
        return str(self.invitation(admission["by"])["role"]) if admission["op"] == "admit" else "owner"

    def is_active(self, peer: str, seq: int) -> bool:
        admission = self.admission(peer, seq)
        if admission is None:
            return False
        return not any(self.removes(body, peer) for body in self.history[admission["seq"] + 1 : seq + 1])

    def removes(self, body: Body, peer: str) -> bool:
        """Whether entry `body` removes `peer`, which was admitted before it."""
        if body["op"] == "revoke":
            if body["who"] in self.peers(body["seq"] - 1):
                return bool(body["who"] == peer)
            return bool(body["who"] == self.user(peer))
        return body["op"] == "recover" and self.role_given(peer, body["seq"] - 1) != "member"

    def role(self, peer: str, seq: int) -> str | None:
        return self.role_given(peer, seq) if self.is_active(peer, seq) else None

    def rank(self, peer: str, seq: int) -> int:
        role = self.role(peer, seq)
        return RANK[role] if role else 0

    def active(self, seq: int) -> set[str]:
        return {peer for peer in self.peers(seq) if self.is_active(peer, seq)}

    def owners(self, seq: int) -> set[str]:
        return {peer for peer in self.active(seq) if self.role(peer, seq) == "owner"}

    def box(self, peer: str, seq: int) -> str:
        admission = self.admission(peer)
        assert admission is not None
        changes = [body["box"] for body in self.of("rekey", until=seq) if body["by"] == peer]
        return str(changes[-1] if changes else admission["m"]["box"])

    def card_floor(self, peer: str) -> int:
        return max((body["cs"] for body in self.of("rekey") if body["by"] == peer), default=0)

    # Invites

    def invitation(self, invite: str) -> Body:
        return next(body for body in self.of("invite") if body["inv"] == invite)

    def invites(self) -> list[str]:
        return [body["inv"] for body in self.of("invite")]

    def used(self, invite: str, seq: int) -> int:
        return sum(body["by"] == invite for body in self.of("admit", until=seq))

    def could_admit(self, invite: str, seq: int) -> bool:
        """Neither spent nor over, by the log's own time; says nothing of being closed."""
        body = self.invitation(invite)
        return self.used(invite, seq) < body["uses"] and self.time(seq) <= body["exp"] + SKEW

    def is_closed(self, invite: str, seq: int) -> bool:
        issued = self.invitation(invite)
        for body in self.history[issued["seq"] + 1 : seq + 1]:
            before = body["seq"] - 1
            if body["op"] == "uninvite" and body["inv"] == invite:
                return True
            swept = body["op"] == "recover" or (body["op"] == "revoke" and self.removed(issued["by"], body))
            if swept and self.could_admit(invite, before):
                return True
        return False

    def removed(self, peer: str, body: Body) -> bool:
        return self.is_active(peer, body["seq"] - 1) and not self.is_active(peer, body["seq"])

    def device_uses_left(self, user: str) -> int:
        granted = [0]
        for body in self.of("genesis", "admit", "recover"):
            if body["m"]["user"] == user:
                granted.append(self.grants(body))
        links = [body for body in self.of("invite") if body.get("user") == self.user(body["by"]) == user]
        return max(0, max(granted) - sum(body["uses"] for body in links))

    def grants(self, admission: Body) -> int:
        if admission["op"] != "admit":
            return 5
        invitation = self.invitation(admission["by"])
        if invitation.get("user") == self.user(invitation["by"]):
            return 0
        return int(invitation.get("dev", 5))

    # Channels

    def channels(self) -> list[str]:
        return [*BUILT_IN, *(body["chan"] for body in self.of("chan"))]

    def kind(self, channel: str) -> str:
        return "open" if channel in BUILT_IN else self.creation(channel)["kind"]

    def creation(self, channel: str) -> Body:
        return next(body for body in self.of("chan") if body["chan"] == channel)

    def listed(self, channel: str, seq: int) -> set[str]:
        """Who was put into a closed channel and not taken out, active or not."""
        inside: set[str] = set()
        for body in self.history[: seq + 1]:
            if body.get("chan") == channel:
                if body["op"] == "chan":
                    inside.add(body["by"])
                elif body["op"] == "chan_add":
                    inside.add(body["who"])
                else:
                    inside.discard(body["who"])
        return inside

    def channel_members(self, channel: str, seq: int) -> set[str]:
        if channel not in BUILT_IN and self.creation(channel)["seq"] > seq:
            return set()
        everybody = self.active(seq)
        return everybody if self.kind(channel) == "open" else everybody & self.listed(channel, seq)

    def version(self, channel: str) -> int:
        """The last entry that changed who reads the channel, or with which key."""
        is_open = self.kind(channel) == "open"
        for body in reversed(self.history):
            seq = body["seq"]
            if body["op"] == "recover" or (not is_open and body.get("chan") == channel):
                return seq
            scope = BUILT_IN[0] if is_open else channel
            if self.readers(scope, seq) != self.readers(scope, seq - 1):
                return seq
        return 0

    def readers(self, channel: str, seq: int) -> set[tuple[str, str]]:
        return {(peer, self.box(peer, seq)) for peer in self.channel_members(channel, seq)}

    # Rules

    def signers(self, body: Body) -> set[str] | None:
        """The keys that must sign, or None when the rules do not allow the entry."""
        if not self.history:
            return {body["by"]} if body["op"] == "genesis" and body["by"] == body["m"]["sign"] else None
        if body["op"] == "genesis" or body["at"] + SKEW < self.time(self.end):
            return None
        allowed = getattr(self, "may_" + body["op"])(body, self.end)
        if not allowed:
            return None
        if body["op"] == "invite":
            return {body["by"], body["inv"]}
        if body["op"] == "recover":
            return {body["by"], body["m"]["sign"]}
        if body["op"] == "admit":
            named = "user" in self.invitation(body["by"])
            return {body["by"], body["m"]["sign"]} | (set() if named else {body["m"]["user"]})
        return {body["by"]}

    def may_invite(self, body: Body, end: int) -> bool:
        by, role, uses = body["by"], body["role"], body["uses"]
        if not self.is_active(by, end):
            return False
        mine, own = self.role(by, end), body.get("user") == self.user(by)
        invitable = {"owner": ("member", "admin"), "admin": ("member",), "member": ()}[str(mine)]
        linkable = {"owner": ("member", "admin", "owner"), "admin": ("member", "admin"), "member": ("member",)}
        if role not in (linkable[str(mine)] if own else invitable):
            return False
        if "user" in body and not own and mine != "owner":
            return False
        most = 1 if role != "member" else 5 if "user" in body else 1000
        if own and mine != "owner" and uses > self.device_uses_left(self.user(by)):
            return False
        if "dev" in body and (own or not 0 <= body["dev"] <= 5):
            return False
        still_open = [
            invite
            for invite in self.invites()
            if self.invitation(invite)["by"] == by and not self.is_closed(invite, end) and self.could_admit(invite, end)
        ]
        fresh = body["inv"] not in self.invites() and body["inv"] not in self.peers()
        in_time = body["at"] < body["exp"] <= body["at"] + 90 * 24 * HOUR
        return 1 <= uses <= most and in_time and len(still_open) < 64 and fresh

    def may_uninvite(self, body: Body, end: int) -> bool:
        if body["inv"] not in self.invites() or self.is_closed(body["inv"], end):
            return False
        invitation, rank = self.invitation(body["inv"]), self.rank(body["by"], end)
        outranks = rank >= 2 and rank >= self.rank(invitation["by"], end)
        is_over = body["at"] > invitation["exp"]
        return rank > 0 and (body["by"] == invitation["by"] or outranks or is_over)

    def may_admit(self, body: Body, end: int) -> bool:
        invite, keys = body["by"], body["m"]
        if invite not in self.invites() or self.is_closed(invite, end) or not self.could_admit(invite, end):
            return False
        invitation = self.invitation(invite)
        fresh = keys["sign"] not in self.peers() and keys["sign"] not in self.invites()
        return bool(body["at"] <= invitation["exp"] and fresh and invitation.get("user", keys["user"]) == keys["user"])

    def may_revoke(self, body: Body, end: int) -> bool:
        by, who = body["by"], body["who"]
        targets = {who} if who in self.peers() else {peer for peer in self.peers() if self.user(peer) == who}
        targets &= self.active(end)
        if not targets or not self.is_active(by, end) or not self.owners(end) - targets:
            return False
        return all(self.may_remove(by, target, end) for target in targets)

    def may_remove(self, by: str, target: str, end: int) -> bool:
        mine, theirs = self.rank(by, end), self.rank(target, end)
        siblings = self.user(by) == self.user(target)
        return by == target or mine == 3 or mine > theirs or (siblings and mine == theirs)

    def may_rekey(self, body: Body, end: int) -> bool:
        by = body["by"]
        return self.is_active(by, end) and body["box"] != self.box(by, end) and body["cs"] > self.card_floor(by)

    def may_role(self, body: Body, end: int) -> bool:
        leaves_none = body["role"] != "owner" and self.owners(end) == {body["who"]}
        return self.role(body["by"], end) == "owner" and self.is_active(body["who"], end) and not leaves_none

    def may_recover(self, body: Body, end: int) -> bool:
        new = body["m"]["sign"]
        return body["by"] == self.history[0].get("rec") and new not in self.peers() and new not in self.invites()

    def may_chan(self, body: Body, end: int) -> bool:
        return self.is_active(body["by"], end) and body["chan"] not in self.channels()

    def may_chan_add(self, body: Body, end: int) -> bool:
        by, who, channel = body["by"], body["who"], body["chan"]
        if channel not in self.channels() or self.kind(channel) == "open":
            return False
        inside = self.listed(channel, end)
        if not self.is_active(by, end) or not self.is_active(who, end) or who in inside:
            return False
        admin, creator = self.rank(by, end) >= 2, self.creation(channel)["by"] == by
        if self.kind(channel) == "group" and (by == who or admin):
            return True
        return by in inside and (admin or creator)

    def may_chan_del(self, body: Body, end: int) -> bool:
        by, who, channel = body["by"], body["who"], body["chan"]
        if channel not in self.channels() or self.kind(channel) == "open" or not self.is_active(by, end):
            return False
        if who not in self.listed(channel, end):
            return False
        return by == who or by == self.creation(channel)["by"] or self.rank(by, end) >= 2

    def may_broker(self, body: Body, end: int) -> bool:
        return self.role(body["by"], end) == "owner"
