"""Counters of one broker: plain integers that the hot path increments; http.py exports them."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """What happened since the start."""

    links_opened: int = 0
    links_refused: int = 0
    links_replaced: int = 0
    handshakes_failed: int = 0
    frames_malformed: int = 0
    envelopes_submitted: int = 0
    envelopes_accepted: int = 0
    envelopes_duplicate: int = 0
    envelopes_pushed: int = 0
    envelopes_acknowledged: int = 0
    envelopes_expired: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    entries_appended: int = 0
    store_failures: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Refusals by code."""

    def count_refusal(self, code: str) -> None:
        """One more refusal with `code`, which is one of ours and not a client's text."""
        self.refused[code] = self.refused.get(code, 0) + 1
