"""One broker on SQLite with three users' daemons on it, all of them processes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.faults.journals import broker_audit, broker_roster
from tests.faults.life import USERS, Life, enrol, list_inbox
from tests.faults.oracle import Evidence, check
from tests.faults.victims import BrokerVictim, DaemonVictim, start
from tests.processes import BrokerProcess, free_port, machine, wait_until


class LoneWorld(NamedTuple):
    """Three users of one mesh, all processes running."""

    broker: BrokerVictim
    database: Path
    daemons: dict[str, DaemonVictim]
    members: dict[str, str]
    """Peer keys by user."""

    def judge(self, life: Life, heals_within_s: float) -> tuple[list[str], list[str], list[str]]:
        """End a life, and say what was lost, double and false."""
        life.stop_writing()
        with suppress(AssertionError):  # whatever is not delivered by then is counted as lost
            wait_until(lambda: not life.seen.unfinished(), "every queued message is delivered", heals_within_s)
        inboxes = {user: list_inbox(daemon) for user, daemon in self.daemons.items()}
        life.end(self.daemons)
        evidence = Evidence(self.daemons, self.members, broker_roster(self.database), broker_audit(self.database))
        return check(evidence, life.seen, inboxes)


@contextmanager
def lone_world(tmp_path: Path, extra: dict[str, str] | None = None) -> Iterator[LoneWorld]:
    """Alice founded the mesh, Bob and Carol joined by her link, and everybody knows everybody's name.

    Args:
        extra: Environment variables of the users' programs.
    """
    with ExitStack() as stack:
        process = BrokerProcess(tmp_path / "broker", free_port(), ("--log-level", "warning"))
        broker = BrokerVictim(process)
        start(broker)
        stack.callback(broker.kill)
        machines = {user: stack.enter_context(machine(tmp_path, user)) for user in USERS}
        daemons = {user: DaemonVictim(one, user) for user, one in machines.items()}
        for daemon in daemons.values():
            daemon.machine.extra.update(extra or {})
            daemon.machine.config_dir.mkdir(mode=0o700)
            start(daemon)
            stack.callback(daemon.kill)
        enrol(machines, process.url)
        members = {user: one.ok("whoami")["identities"][0]["peer"] for user, one in machines.items()}
        yield LoneWorld(broker, process.database, daemons, members)
