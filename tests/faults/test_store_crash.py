"""The store against `kill -9` and a disk that refuses to grow."""

import random
import resource
import subprocess
import sys
from pathlib import Path

from claudemesh.broker.audit import checkpoint
from claudemesh.broker.store.base import LinkId, Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.crypto.primitives import signing_key
from claudemesh.protocol.audit_view import AuditView, verify
from claudemesh.types import BrokerId
from tests.faults import store_writer
from tests.faults.store_writer import BOB, MESH, NOW

KILLS = 20
BROKER_KEY = signing_key(b"\x07" * 32)
WRITER = [sys.executable, store_writer.__file__]


class Answered:
    """What the killed processes had answered, and what they may have deleted."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.acked: set[str] = set()
        self.receipts: dict[int, str] = {}

    def read(self, line: str) -> None:
        match line.split():
            case ["stored", message, n, row_hash]:
                self.stored.add(message)
                self.receipts[int(n)] = row_hash
            case ["acked", message]:
                self.acked.add(message)
            case _:
                pass  # the line that the kill cut off was not answered to anybody


def run_and_kill(path: Path, lines: int, answered: Answered) -> None:
    """Kill a writer after it has printed `lines` lines, and note everything that it printed."""
    with subprocess.Popen([*WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            answered.read(line)
            lines -= 1
            if lines == 0:
                process.kill()
        assert process.wait() == -9


async def check(path: Path, answered: Answered) -> int:
    """Every answered envelope is queued or was acknowledged, and the audit log holds every receipt."""
    store = SqliteStore(path)
    await store.open()
    queued = {
        one[0] for one in await store._database.read(lambda c: c.execute("SELECT message_id FROM mailbox").fetchall())
    }
    return await check_store(store, queued, answered)


async def check_store(store: Store, queued: set[str], answered: Answered) -> int:
    """As `check`, of an open store in which the messages `queued` are; closes it."""
    rows = await store.lease(MESH, BOB, LinkId(1), NOW, 1_000_000)
    usage = await store.mailbox_usage(MESH, BOB)
    n, head = await store.audit_head(MESH)
    audit = await store.audit_rows(MESH, 0, n)
    await store.close()

    assert answered.stored - answered.acked <= queued
    assert len(rows) == len(queued) == usage.rows
    end = checkpoint(MESH, n, head, NOW, BROKER_KEY)
    verify(AuditView(), audit, end, answered.receipts, mesh=MESH, broker=BrokerId(BROKER_KEY.public))
    return n


async def test_nothing_that_was_answered_is_lost_by_a_kill(tmp_path: Path) -> None:
    """`kill -9` at any time: every answered id is stored, and the audit chain is whole and only grows."""
    chooser = random.Random(2_026)
    answered = Answered()
    length = 0

    for _ in range(KILLS):
        run_and_kill(tmp_path / "db", chooser.randrange(1, 800), answered)
        grown = await check(tmp_path / "db", answered)
        assert grown >= length
        length = grown

    assert len(answered.stored) > KILLS


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))


def run_with_little_room(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WRITER, str(path)], capture_output=True, text=True, preexec_fn=limit_file_size, check=False)


async def test_what_was_answered_before_the_disk_was_full_is_kept(tmp_path: Path) -> None:
    """The operating system refuses to let a file grow: the writer fails with `disk`, and answered what it stored."""
    answered = Answered()

    finished = run_with_little_room(tmp_path / "db")
    for line in finished.stdout.splitlines():
        answered.read(line)

    assert finished.returncode == 1
    assert "LocalError: disk" in finished.stderr
    assert answered.stored
    await check(tmp_path / "db", answered)
