"""Computers of their own on one machine: network namespaces, and cables between them that can be pulled.

Each network is a bridge, on which this machine has the address `.1`; each namespace has a cable (a pair of virtual
interfaces) to some of the networks. Addresses are of 198.18.0.0/15, which RFC 2544 sets aside for tests.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

NETWORKS: Final = 512
_BRIDGE: Final = "cmesh"
_NAMESPACE: Final = "claudemesh"
_SYSFS: Final = Path("/sys/class/net")


class Cable:
    """The link of one namespace to one network."""

    def __init__(self, port: str, address: str) -> None:
        self.address = address
        """Of the namespace, on that network."""
        self._port = port

    def pull(self) -> None:
        """Nothing comes through any more, and nobody is told: connections stay open."""
        _ip("link", "set", self._port, "down")

    def plug(self) -> None:
        """Put it back."""
        _ip("link", "set", self._port, "up")


class Network:
    """One bridge."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._cables = 0

    @property
    def bridge(self) -> str:
        return f"{_BRIDGE}{self._number}"

    @property
    def address(self) -> str:
        """Of this machine, for servers that run outside of any namespace."""
        return self._address(1)

    def connect(self, namespace: str, interface: str) -> Cable:
        """Lay a cable to a namespace; it is gone when the network is."""
        self._cables += 1
        port, address = f"{self.bridge}p{self._cables}", self._address(1 + self._cables)
        _ip("link", "add", port, "type", "veth", "peer", "name", interface, "netns", namespace)
        _ip("link", "set", port, "master", self.bridge, "up")
        _ip("-n", namespace, "address", "add", f"{address}/24", "dev", interface)
        _ip("-n", namespace, "link", "set", interface, "up")
        return Cable(port, address)

    def _address(self, host: int) -> str:
        return f"198.{18 + self._number // 256}.{self._number % 256}.{host}"


@contextmanager
def network() -> Iterator[Network]:
    """A network without cables."""
    made = _reserve()
    try:
        _ip("link", "set", made.bridge, "alias", str(os.getpid()))
        _ip("address", "add", f"{made.address}/24", "dev", made.bridge)
        _ip("link", "set", made.bridge, "up")
        yield made
    finally:
        _demolish(made.bridge)


@contextmanager
def namespace(number: int) -> Iterator[str]:
    """A network namespace with nothing but loopback; its name. What still runs in it at the end is killed."""
    name = f"{_NAMESPACE}-{os.getpid()}-{number}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _remove(name)


def inside(name: str) -> tuple[str, ...]:
    """What to put before a command so that it runs in a namespace; the process is the command's own."""
    return ("ip", "netns", "exec", name)


def require_namespaces() -> None:
    """Fail with what to do where namespaces cannot be made, and remove those of tests that were killed."""
    if shutil.which("ip") is None:
        pytest.fail("this test cuts cables between network namespaces, for which it needs `ip` (Debian: iproute2)")
    probe = f"{_NAMESPACE}-{os.getpid()}-probe"
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.fail(
            "this test cuts cables between network namespaces, which it must be allowed to make: run it as root, or in"
            f" a container with CAP_NET_ADMIN and CAP_SYS_ADMIN (uid {os.geteuid()}; {tried.stderr.strip()})"
        )
    _ip("netns", "delete", probe)
    _sweep()


def _reserve() -> Network:
    """The first number that nobody has: making its bridge is what takes it."""
    for number in range(NETWORKS):
        made = Network(number)
        if not (_SYSFS / made.bridge).exists() and not _ports(made.bridge):
            with suppress(subprocess.CalledProcessError):
                _ip("link", "add", made.bridge, "type", "bridge", "forward_delay", "0")
                return made
    raise AssertionError("no network is free")


def _sweep() -> None:
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        parts = name.split("-")
        if parts[0] == _NAMESPACE and len(parts) == 3 and not Path(f"/proc/{parts[1]}").exists():
            _remove(name)
    for bridge in _SYSFS.glob(f"{_BRIDGE}*[0-9]"):
        owner = bridge / "ifalias"
        with suppress(OSError, subprocess.CalledProcessError):  # another test sweeps as well
            pid = owner.read_text().strip()
            if (bridge / "bridge").exists() and pid and not Path(f"/proc/{pid}").exists():
                _demolish(bridge.name)


def _demolish(bridge: str) -> None:
    """Remove a bridge, and first its cables: the kernel takes its time over those of a deleted namespace."""
    for port in _ports(bridge):
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", port)
    _ip("link", "delete", bridge)


def _ports(bridge: str) -> list[str]:
    return [port.name for port in _SYSFS.glob(f"{bridge}p*")]


def _remove(name: str) -> None:
    with suppress(subprocess.CalledProcessError):  # another test sweeps as well
        for pid in _ip("netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        _ip("netns", "delete", name)


def _ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout
