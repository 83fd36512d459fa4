"""What follows an inbox is given everything that arrives, however much nobody has been shown yet."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.daemon.ipc import Client
from claudemesh.daemon.reading import READ_BATCH
from tests.processes import Machine, machine

BACKLOG = READ_BATCH + 10


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Machine]:
    """A user of the local mesh who writes to itself."""
    with ExitStack() as stack:
        one = stack.enter_context(machine(tmp_path, "alice"))
        one.ok("up", "--name", "alice", "--device", "box")
        yield one


def send(one: Machine, texts: list[str]) -> None:
    """Send messages to oneself, and wait until the last has arrived."""
    with Client(ConfigDir(one.config_dir).socket(), 60) as client:
        for text in texts:
            wait = "delivered" if text is texts[-1] else ""
            client.call("send", {"to": "alice.box", "text": text, "wait": wait})


def test_a_watch_reports_more_than_one_batch_of_unread_messages(alice: Machine) -> None:
    """A reader that marks nothing must not go blind once a batch is unread."""
    before, after = [f"before {number}" for number in range(BACKLOG)], ["after"]
    send(alice, before)

    with Client(ConfigDir(alice.config_dir).socket(), 60) as client:
        events = client.stream("watch", {})
        texts = [next(events) for _ in range(BACKLOG + 1)]
        send(alice, after)
        texts.append(next(events))

    assert [event["message"]["text"] for event in texts if "message" in event] == before + after
