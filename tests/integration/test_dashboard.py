"""The dashboard and the alerts ask a real Prometheus, which scrapes a real broker, for values that exist."""

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.processes import free_port, machine, start_broker, wait_until

DASHBOARD = Path("packaging/grafana/broker.json")
ALERTS = Path("packaging/prometheus/alerts.yaml")
ONLY_OF_NODES: Final = {"claudemesh_bus_connected"}
"""Exported where there is a bus, as `test_cluster_messages.py` sees."""
INTERVAL = "5s"
"""What a panel's `$__rate_interval` is with a scrape each second."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that scrapes a broker over which two peers converse."""
    directory = tmp_path_factory.mktemp("prometheus")
    with start_broker(directory) as broker, machine(directory, "alice") as alice, machine(directory, "bob") as bob:
        alice.run("mesh", "create", "team", "--broker", broker.url, "--name", "alice")
        link = alice.run("invite", "--json").json["link"]
        bob.run("join", "-", "--name", "bob", stdin=link)
        asyncio.run(be_refused(broker.url))
        with serving(directory, broker.port) as url:
            for number in range(8):
                alice.run("send", "bob", f"message {number}", "--wait", "delivered")
            wait_until(lambda: value_of(url, "claudemesh_envelopes_accepted_total") > 0, "a scrape shows the messages")
            yield url


def test_every_panel_shows_a_value(prometheus: str) -> None:
    """No query names a metric or a label that the broker does not export."""
    queries = [(panel["title"], one["expr"]) for panel in panels() for one in panel["targets"]]

    empty = [(title, query) for title, query in queries if not eventually_answered(prometheus, query)]

    assert len(queries) > 20
    assert empty == []


def test_every_alert_can_be_evaluated_and_none_fires_on_a_healthy_broker(prometheus: str) -> None:
    """The rules are loaded by the server itself, which reports each one's health."""
    rules = [rule for group in get(prometheus, "/api/v1/rules")["groups"] for rule in group["rules"]]
    wait_until(lambda: all(rule["health"] == "ok" for rule in loaded_rules(prometheus)), "every rule is evaluated")

    assert {rule["name"] for rule in rules} == set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    assert [rule["name"] for rule in loaded_rules(prometheus) if rule["state"] != "inactive"] == []


def test_every_metric_of_an_alert_is_exported(prometheus: str) -> None:
    """An alert on a metric that does not exist never fires, and nobody notices."""
    named = set(re.findall(r"claudemesh_\w+", ALERTS.read_text())) - ONLY_OF_NODES

    assert [metric for metric in sorted(named) if not eventually_answered(prometheus, metric)] == []


async def be_refused(url: str) -> None:
    """Say something that is not of the protocol: a refusal has a code only once there was one."""
    async with aiohttp.ClientSession() as client, client.ws_connect(url) as stranger:
        await stranger.receive()
        await stranger.send_str("{}")
        await stranger.receive()


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def loaded_rules(url: str) -> list[dict[str, Any]]:
    return [rule for group in get(url, "/api/v1/rules")["groups"] for rule in group["rules"]]


def eventually_answered(url: str, query: str) -> bool:
    """Whether a query has a result once there are two scrapes to compare."""
    plain = query.replace("$__rate_interval", INTERVAL)
    deadline = time.monotonic() + 15
    while not (found := get(url, "/api/v1/query", query=plain)["result"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(found)


def value_of(url: str, query: str) -> float:
    found = get(url, "/api/v1/query", query=query)["result"]
    return float(found[0]["value"][1]) if found else 0.0


def get(url: str, path: str, **parameters: str) -> Any:
    """The data of one answer of the server's API; a query that it cannot parse fails the test with its words."""
    try:
        with urllib.request.urlopen(f"{url}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


@contextmanager
def serving(directory: Path, broker_port: int) -> Iterator[str]:
    """A Prometheus that scrapes one broker each second."""
    program = shutil.which("prometheus")
    assert program is not None, "install prometheus (Debian: apt-get install prometheus), as .ci/run does"
    port = free_port()
    config = directory / "prometheus.yaml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{ALERTS.resolve()}]\n"
        "scrape_configs:\n"
        f"  - {{job_name: claudemesh, static_configs: [{{targets: ['127.0.0.1:{broker_port}']}}]}}\n"
    )
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(directory / "prometheus.log").open("wb"))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url), "prometheus answers")
        yield url
    finally:
        server.kill()
        server.wait()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
