"""Counters of one broker: plain integers that the hot path increments; http.py exports them."""

from dataclasses import dataclass, field
from typing import Final

from claudemesh.types import MeshId, PeerId

MAX_UNAUDITED: Final = 10_000


@dataclass(slots=True)
class Metrics:
    """What happened since the start."""

    links_opened: int = 0
    links_refused: int = 0
    links_replaced: int = 0
    links_cut: int = 0
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
    commits_outdated: int = 0
    hints_received: int = 0
    nodes_buried: int = 0
    spans_exported: int = 0
    spans_dropped: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Refusals by code."""
    unaudited: dict[tuple[MeshId, PeerId, str], int] = field(default_factory=dict)
    """Refusals of members since the last audit rows about them: one row stands for all of a minute."""

    def count_refusal(self, code: str, mesh: MeshId | None = None, peer: PeerId | None = None) -> None:
        """One more refusal with `code`, which is one of ours and not a client's text."""
        self.refused[code] = self.refused.get(code, 0) + 1
        if mesh is not None and peer is not None and len(self.unaudited) < MAX_UNAUDITED:
            key = (mesh, peer, code)
            self.unaudited[key] = self.unaudited.get(key, 0) + 1
