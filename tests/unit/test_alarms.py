"""What a person should know of a broker or of keys, wherever they look: in the log, and in what `doctor` says."""

import json
import logging

import pytest

from claudemesh.daemon.alarms import log_alarm
from claudemesh.daemon.checkup import _keys
from claudemesh.daemon.logs import JsonLine
from claudemesh.peer import events
from claudemesh.peer.views import MeshView
from claudemesh.types import BrokerId, Digest, MeshId, PeerId, UnixMillis

MESH = "5a" * 32


def view(foreign_card: int) -> MeshView:
    return MeshView(
        id=MeshId(MESH),
        alias="team",
        seq=3,
        head=Digest("ab" * 32),
        head_at=UnixMillis(1),
        broker=BrokerId("cd" * 32),
        broker_url="wss://broker.example/ws",
        connected=True,
        down="",
        frozen="",
        audit="",
        peers=2,
        outbox_open=0,
        inbox_unseen=0,
        foreign_card=foreign_card,
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (events.Frozen("fork"), {"event": "frozen", "code": "fork"}),
        (events.AuditContradicted("audit_truncated", "it ends at 3"), {"event": "audit_contradicted"}),
        (events.CloneSuspected(7), {"event": "clone_suspected", "count": 7}),
        (events.HeadStale(700_000), {"event": "head_stale", "ms": 700_000}),
    ],
)
def test_an_alarm_is_one_line_of_the_log(
    event: events.Event, line: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """With the mesh by its fingerprint, as a warning; nothing of what a peer or broker wrote stands in it."""
    with caplog.at_level(logging.INFO, logger="claudemesh.daemon"):
        log_alarm(MESH, event)

    (record,) = caplog.records
    written = json.loads(JsonLine().format(record))
    assert line.items() <= written.items()
    assert (written["level"], written["mesh"]) == ("warning", MESH[:8])


def test_what_is_no_alarm_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="claudemesh.daemon"):
        log_alarm(MESH, events.PeerRevoked(PeerId("ef" * 32)))

    assert caplog.records == []


def test_doctor_says_that_keys_are_used_twice() -> None:
    """N09: an alarm that only a program would see is none."""
    clean, cloned = _keys(view(0)), _keys(view(4))

    assert clean.ok
    assert not cloned.ok
    assert "card 4 of this device" in cloned.detail
    assert "--reason stolen" in cloned.remedy
