"""An entry costs the same at the end of a short log and of a long one (docs/spec/roster.md §4)."""

import sys
from types import FrameType
from typing import Any

import pytest

from claudemesh.protocol.roster import Roster
from tests.rosters import Log, box, channel, key, keys_of, user_of

SHORT, LONG = 3, 300


def _log(size: int) -> Log:
    """A mesh with `size` members, open channels, private channels without Bob, and spent invites."""
    log = Log().with_member("bob")
    log.invite("alice", "many", uses=1000)
    for index in range(size):
        log.admit("many", f"peer {index}")
        by = f"peer {index}"
        log.append("chan", by, chan=channel(f"open {index}"), kind="open")
        log.append("chan", by, chan=channel(f"private {index}"), kind="private")
        log.invite("alice", f"invite {index}")
        log.admit(f"invite {index}", f"invited {index}")
    log.append("chan", "bob", chan=channel("bob's"), kind="private")
    return log


@pytest.fixture(scope="module")
def logs() -> tuple[Log, Log]:
    return _log(SHORT), _log(LONG)


def _lines_run(log: Log, op: str, by: str, *cosigners: str, **fields: Any) -> int:
    """Apply an entry to a copy of the log and count the lines of the roster's code that ran."""
    roster = Roster.restore(log.entries)
    entry = log.draft(op, by, *cosigners, **fields)
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if "roster" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        roster.apply(entry)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    ("op", "by", "cosigners", "fields"),
    [
        ("admit", "many", ("eve", user_of("eve")), {"m": keys_of("eve")}),
        ("revoke", "alice", (), {"who": key("bob").public, "why": "lost"}),
        ("revoke", "alice", (), {"who": key(user_of("bob")).public, "why": "lost"}),
        ("rekey", "bob", (), {"box": box("bob 2").public, "cs": 1}),
        ("role", "alice", (), {"who": key("bob").public, "role": "owner"}),
        ("chan", "bob", (), {"chan": channel("new"), "kind": "open"}),
        ("chan_add", "bob", (), {"chan": channel("bob's"), "who": key("alice").public}),
        ("uninvite", "alice", (), {"inv": key("many").public}),
        ("broker", "alice", (), {"bk": key("b2").public}),
    ],
)
def test_entry_runs_as_many_lines_in_a_long_log(
    logs: tuple[Log, Log], op: str, by: str, cosigners: tuple[str, ...], fields: dict[str, Any]
) -> None:
    """No entry walks over all members, channels or invites; a lines count does not depend on the machine."""
    short, long = (_lines_run(log, op, by, *cosigners, **fields) for log in logs)

    assert short == long > 0


def test_invite_walks_over_its_issuers_open_invites_only(logs: tuple[Log, Log]) -> None:
    short, long = (_lines_run(log, "invite", "alice", "new", **log.invite_fields("new")) for log in logs)

    assert short == long > 0
