"""A host's side of the last hop: what its hooks ask of a real daemon, over the real socket."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claudemesh.daemon.ipc import Client
from tests.processes import Machine, wait_until


@dataclass
class Host:
    """One session of an agent on one machine, as its host knows it."""

    machine: Machine
    key: str
    host: str = "claude-code"
    cwd: str = "/srv/payments-api"

    def ask(self, op: str, **args: Any) -> Any:
        """One request, on a connection of its own, as a hook process makes it."""
        with Client(socket_of(self.machine), 60) as client:
            return client.call(f"agent.{op}", {"host": self.host, "key": self.key, **args})

    def open(self, **args: Any) -> Any:
        return self.ask("open", cwd=self.cwd, **args)

    def take(self, moment: str, adapter: str = "test.hook", **args: Any) -> Any:
        return self.ask("take", cwd=self.cwd, moment=moment, adapter=adapter, **args)

    def hand(self, taken: Any) -> None:
        """The hook has written what it took."""
        self.ask("handed", offers=numbers(taken))

    def confirm(self, taken: Any, evidence: str = "next_event") -> None:
        self.ask("confirm", offers=numbers(taken), evidence=evidence)

    def status(self, **args: Any) -> Any:
        return self.ask("status", **args)

    def ask_list(self) -> Any:
        """Every session that is open on this machine."""
        with Client(socket_of(self.machine), 60) as client:
            return client.call("agent.list", {})["agents"]

    def wait_for(self, count: int, within_s: float = 30) -> None:
        """Wait until so many messages wait for this session."""
        wait_until(lambda: sum(self.status()["waiting"].values()) >= count, f"{count} messages", within_s)


def socket_of(machine: Machine) -> Path:
    """Where the machine's daemon listens: elsewhere, when its directory has a long name."""
    return Path(json.loads((machine.config_dir / "daemon.json").read_text())["socket"])


def numbers(taken: Any) -> list[int]:
    """The offers of an answer to `agent.take`."""
    return [one["offer"] for one in taken["offers"] if one["offer"]]


def ids(taken: Any) -> list[str]:
    """The messages of an answer to `agent.take`."""
    return [one["id"] for one in taken["offers"]]
