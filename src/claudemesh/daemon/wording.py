"""How far a message came and when it will be read, in words for a person or a model."""

import time
from typing import Any, Final

from claudemesh.daemon.rendering import visible

_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_TODAY_MS: Final = 18 * 3_600_000
REACH_WORDS: Final[dict[str, str]] = {
    "wakeable": "wakeable",
    "tool": "at next tool",
    "turn": "at end of turn",
    "asked": "only when asked",
}
"""How a message reaches an agent's session, as presence says it."""


def ago(at: int, now: int) -> str:
    """How long ago `at` was: "just now", "3 h ago"; "never" for 0."""
    if not at:
        return "never"
    return "just now" if now - at < 5_000 else f"{span(now - at)} ago"


def span(length_ms: int) -> str:
    """A length of time in its largest whole unit."""
    for unit, size in _UNITS:
        if length_ms >= size:
            return f"{length_ms // size} {unit}"
    return "0 s"


def until(at: int, now: int) -> str:
    """A moment in the future for a person: the time today, else the date (local time)."""
    near = at - now < _TODAY_MS
    return time.strftime("%H:%M" if near else "%Y-%m-%d", time.localtime(at / 1000))


def progress(one: dict[str, Any], sent: dict[str, Any], now: int) -> str:
    """How far a message came at one recipient of an answer to `send`, why no further, and until when it is kept."""
    address, stage = visible(one["address"]), one["stage"]
    reason = f" ({visible(one['code'])})" if one["code"] else ""
    if stage == "queued":
        unreachable = "" if sent["link"] == "open" else f"; the broker is not reached ({visible(sent['link'])})"
        if sent["link"] == "revoked":
            unreachable = "; the broker says that this device was removed from the mesh"
        return f"queued for {address}{reason}{unreachable}; will be sent until {until(sent['expires_at'], now)}"
    if stage not in ("accepted", "delivered"):
        return f"{stage}{reason}; {address}"
    if one["online"]:
        return f"{stage}{reason}; {address} {prospect(one, sent.get('priority', 'next'))}"
    if stage == "delivered":
        return f"{stage}{reason}; {address}"
    if one["online"] is None:
        return f"accepted; for {address}, until {until(sent['expires_at'], now)}"
    seen = f"was last seen {ago(one['last_seen_at'], now)}" if one["last_seen_at"] else "was never seen"
    return f"accepted; {address} {seen}; will wait until {until(sent['expires_at'], now)}"


def prospect(one: dict[str, Any], priority: str) -> str:
    """When a recipient that is online will be shown a message, by what its peer said of the session."""
    status, reach = one["status"], one.get("reach", "")
    if not one.get("agents", 1):
        return "is online, but no agent runs there: it waits in the inbox"
    if not reach:
        return f"is {status or 'online'}"
    if priority == "low" or reach == "asked":
        return f"is {status} and is shown it when it asks"
    if status != "busy":
        return f"is {status} and " + ("will be woken" if reach == "wakeable" else "is shown it when it goes on")
    at = "at its next tool" if priority == "now" and reach in ("wakeable", "tool") else "at the end of its turn"
    return f"is busy and is shown it {at}"
