"""Peers reach a broker through TLS, by the proxy and the file that docs/SELF-HOST.md deploys."""

import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import BrokerProcess, free_port, installed, machine, wait_until


@dataclass
class Proxy:
    """A running Caddy with a certificate of its own authority."""

    port: int
    authority: Path

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}/ws"

    def status(self, path: str) -> int:
        """What a plain GET of this path is answered with; 0 while nothing answers."""
        context = ssl.create_default_context(cafile=self.authority)
        try:
            urllib.request.urlopen(f"https://localhost:{self.port}{path}", context=context, timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0
        return 200


@contextmanager
def proxy(directory: Path, port: int, broker_port: int) -> Iterator[Proxy]:
    """The packaged file: with its own authority instead of a public one, and one node that needs no resolver."""
    packaged = Path("packaging/Caddyfile").read_text()
    text, replaced = re.subn(r"dynamic a broker 7900 \{.*?\}", f"to 127.0.0.1:{broker_port}", packaged, flags=re.DOTALL)
    assert replaced == 1
    file = directory / "Caddyfile"
    local = f"admin off\nskip_install_trust\nlocal_certs\nauto_https disable_redirects\nhttps_port {port}\n"
    file.write_text(f"{{\n{local}}}\n{text}")
    surroundings = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "CLAUDEMESH_DOMAIN": f"localhost:{port}"}
    with (directory / "caddy.log").open("wb") as log:
        command = [installed("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
        process = subprocess.Popen(command, env=surroundings, cwd=directory, stdout=log, stderr=log)
    try:
        one = Proxy(port, directory / "caddy" / "pki" / "authorities" / "local" / "root.crt")
        wait_until(one.authority.exists, "the authority has made itself")
        yield one
    finally:
        process.terminate()
        process.wait()


def test_peers_meet_behind_the_proxy_and_nothing_else_is_reached_there(tmp_path: Path) -> None:
    """A mesh over `wss://`, with the certificate checked; what is for the operator stays inside."""
    port, broker_port = free_port(), free_port()
    broker = BrokerProcess(tmp_path / "broker", broker_port, ("--origin", f"wss://localhost:{port}/ws"))
    broker.start()
    try:
        with (
            proxy(tmp_path, port, broker_port) as front,
            machine(tmp_path, "alice") as alice,
            machine(tmp_path, "bob") as bob,
        ):
            wait_until(lambda: front.status("/ws") == 400, "the broker expects a WebSocket behind TLS")
            trusting = {"SSL_CERT_FILE": str(front.authority)}
            stranger = alice.fails("mesh", "create", "team", "--broker", front.url, "--name", "alice")
            alice.run("daemon", "stop")
            alice.ok("mesh", "create", "team", "--broker", front.url, "--name", "alice", **trusting)
            link = alice.ok("invite", **trusting)["link"]
            bob.ok("join", "-", "--name", "bob", stdin=link, **trusting)
            alice.ok("send", "bob", "through TLS", "--wait", "delivered", **trusting)

            assert (stranger["code"], "SSLCert" in stranger["message"]) == ("broker_unreachable", True), stranger
            assert [message["text"] for message in bob.inbox("--all")] == ["through TLS"]
            assert [front.status(path) for path in ("/metrics", "/health", "/ready", "/")] == [404] * 4
    finally:
        broker.kill()
