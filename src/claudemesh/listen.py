"""Where a server of ours listens: what `--listen` takes."""

import ipaddress
from dataclasses import dataclass
from typing import Self

from claudemesh.errors import UsageError


@dataclass(frozen=True, slots=True)
class Listen:
    """A TCP address; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port` or `[v6]:port`.

        Raises:
            UsageError: It is neither.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65_535:
            raise UsageError("usage", f"--listen takes HOST:PORT, not {text[:80]!r}")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether no other machine can connect to it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def name(self) -> str:
        """The host as a URL has it."""
        return f"[{self.host}]" if ":" in self.host else self.host
