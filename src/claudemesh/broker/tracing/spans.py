"""The spans of a broker and what they may hold: a closed list (docs/spec/broker.md §8).

As a log line does, a span holds counts, closed codes and fingerprints: never a payload, a name, a link, a key, an
address, or the text of an exception.
"""

from contextlib import AbstractContextManager
from typing import Final, Protocol

SPANS: Final[dict[str, tuple[str, ...]]] = {
    "commit": ("letters", "fan_outs", "acknowledged", "stored", "outdated"),
    "handshake": ("behind", "code"),
    "append": ("entries", "uploader", "mesh", "code"),
    "lease": ("leases", "rows", "bytes"),
    "lane": ("meshes", "waited_us", "code"),
    "burial": ("nodes",),
}
"""The attributes of each span; on the wire they are called `claudemesh.NAME`."""

RARE: Final = frozenset({"append", "burial"})
"""So seldom, and so telling, that none is left out."""

Value = int | str


class Span(Protocol):
    """One piece of work that is under way."""

    def note(self, **values: Value) -> None:
        """State attributes of the list; the last value of each counts."""


class Tracer(Protocol):
    """Where spans go."""

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A span for as long as the context; spans of what is done inside are its children.

        An error that leaves the context is noted as `code`: its own, `outdated`, or `internal` for a defect.
        """

    def record(self, name: str, began_ns: int, **values: Value) -> None:
        """A span of work that has just ended.

        Args:
            began_ns: `time.time_ns()` when it began.
        """

    def close(self) -> None:
        """Send what is left and end, within a second or so; blocks."""
