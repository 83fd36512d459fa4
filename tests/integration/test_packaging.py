"""What operators deploy is well-formed, calls commands that exist, and asks for metrics that the broker has."""

import configparser
import json
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ruamel.yaml

from tests.processes import installed, machine

PACKAGING = Path("packaging")
KUBERNETES_VERSION = "1.33"
MANIFESTS = sorted(path for path in (PACKAGING / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")


def test_the_compose_file_follows_its_schema() -> None:
    """Checked against the published schema of compose files."""
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(PACKAGING / "compose.yaml"))

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_follows_the_schema_of_its_kind(manifest: Path) -> None:
    """Strictly: a misspelt field is refused, not ignored."""
    checked = tool("kubernetes-validate", "--kubernetes-version", KUBERNETES_VERSION, "--strict", str(manifest))

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_kustomization_names_every_manifest_but_the_secret() -> None:
    """A template with a placeholder for a key is never applied."""
    kustomization = documents(PACKAGING / "kubernetes" / "kustomization.yaml")[0]

    assert sorted(kustomization["resources"]) == [path.name for path in MANIFESTS if path.name != "secret.example.yaml"]


@pytest.mark.skipif(sys.platform != "linux", reason="the linter is packaged for Linux alone")
def test_the_container_file_passes_its_linter() -> None:
    """No finding at all."""
    checked = tool("hadolint", str(PACKAGING / "Dockerfile"))

    assert checked.returncode == 0, checked.stdout


def test_the_guide_keeps_the_password_of_the_database_from_other_users(tmp_path: Path) -> None:
    """Its lines as they stand there, with the umask that most systems have."""
    shutil.copytree(PACKAGING, tmp_path / "packaging")
    guide = Path("docs/SELF-HOST.md").read_text()
    lines = re.findall(r"^(?:install|sed) .*\.env\b.*$", guide.partition("docker compose up")[0], re.MULTILINE)

    subprocess.run(["sh", "-ec", "umask 022\n" + "\n".join(lines)], cwd=tmp_path / "packaging", check=True)

    settings = tmp_path / "packaging" / ".env"
    assert len(lines) == 3
    assert settings.stat().st_mode & 0o777 == 0o600
    assert re.search(r"^CLAUDEMESH_DATABASE_PASSWORD=[0-9a-f]{48}$", settings.read_text(), re.MULTILINE)


def test_containers_run_without_privileges() -> None:
    """Neither the image nor a manifest runs a broker as root, or lets it become root."""
    image = (PACKAGING / "Dockerfile").read_text()
    broker = documents(PACKAGING / "compose.yaml")[0]["services"]["broker"]
    deployment = documents(PACKAGING / "kubernetes" / "broker.yaml")[0]["spec"]["template"]["spec"]

    assert re.search(r"^USER (?!0\b|root\b)\S+$", image, re.MULTILINE)
    assert broker["cap_drop"] == ["ALL"]
    assert broker["read_only"]
    assert deployment["securityContext"]["runAsNonRoot"]
    for container in deployment["initContainers"] + deployment["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is a program of Linux")
@pytest.mark.parametrize("unit", sorted((PACKAGING / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    """A misspelt setting is one that systemd ignores, with a line in a journal that nobody reads."""
    program = Path(sys.executable).with_name("claudemesh")
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={program}", unit.read_text(), flags=re.MULTILINE)
    copy = tmp_path / unit.name
    copy.write_text(text)

    checked = run(installed("systemd-analyze", "systemd"), "verify", "--man=no", str(copy))

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_caddy_takes_its_file_as_it_is() -> None:
    """Every directive is known, and written as its own formatter writes it."""
    caddy, file = installed("caddy", "caddy"), str(PACKAGING / "Caddyfile")

    checked = run(caddy, "validate", "--adapter", "caddyfile", "--config", file, CLAUDEMESH_DOMAIN="mesh.example.org")
    formatted = run(caddy, "fmt", file)

    assert checked.returncode == 0, checked.stderr
    assert formatted.stdout == (PACKAGING / "Caddyfile").read_text()


def test_caddy_takes_the_file_of_the_guide(tmp_path: Path) -> None:
    """What stands in docs/SELF-HOST.md for those without containers is a whole file."""
    (text,) = re.findall(r"^```caddyfile\n(.*?)^```$", Path("docs/SELF-HOST.md").read_text(), re.DOTALL | re.MULTILINE)
    file = tmp_path / "Caddyfile"
    file.write_text(text)

    checked = run(installed("caddy", "caddy"), "validate", "--adapter", "caddyfile", "--config", str(file))

    assert checked.returncode == 0, checked.stderr


def test_no_image_is_taken_without_a_version() -> None:
    """What is deployed today is deployed tomorrow."""
    named = re.findall(r"^(?:FROM|\s+image:)\s+(\S+)", text_of("Dockerfile", "compose.yaml"), re.MULTILINE)

    foreign = [image for image in named if image != "claudemesh"]
    assert foreign
    assert [image for image in foreign if not re.search(r":\d", image)] == []


def test_every_variable_of_the_compose_file_is_in_the_example() -> None:
    """Whoever copies the example has been asked for everything."""
    used = set(re.findall(r"\$\{(\w+)", text_of("compose.yaml")))
    offered = set(re.findall(r"^(\w+)=", text_of(".env.example"), re.MULTILINE))

    assert used == offered


def test_every_command_that_is_deployed_is_one_that_we_have(tmp_path: Path) -> None:
    """Options are parsed by the real command line; `--help` keeps it from starting anything."""
    commands = deployed_commands()

    assert len(commands) >= 6
    with machine(tmp_path, "operator") as operator:
        for command in commands:
            parsed = operator.run(*command, "--help")
            assert parsed.exit_code == 0, f"{shlex.join(command)}: {parsed.stderr}"


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    """Under the very anchor that the alert names."""
    rules = [
        rule for group in documents(PACKAGING / "prometheus" / "alerts.yaml")[0]["groups"] for rule in group["rules"]
    ]
    headings = {f"#{title.lower()}" for title in re.findall(r"^## (\w+)$", Path("docs/runbook.md").read_text(), re.M)}

    assert rules
    assert {rule["annotations"]["runbook"].removeprefix("docs/runbook.md") for rule in rules} == headings
    assert {f"#{rule['alert'].lower()}" for rule in rules} == headings


def deployed_commands() -> list[list[str]]:
    """Arguments of `claudemesh` in every file that starts it, with variables replaced by examples."""
    compose = documents(PACKAGING / "compose.yaml")[0]["services"]["broker"]["command"]
    deployment = documents(PACKAGING / "kubernetes" / "broker.yaml")[0]["spec"]["template"]["spec"]
    found = [[str(one) for one in compose]]
    found += [one["args"] for one in deployment["initContainers"] + deployment["containers"] if "args" in one]
    for unit in sorted((PACKAGING / "systemd").glob("*.service")):
        found.append(shlex.split(started_by(unit))[1:])
    agent = plistlib.loads((PACKAGING / "launchd" / "claudemesh.daemon.plist").read_bytes())
    found.append(shlex.split(agent["ProgramArguments"][-1])[2:])
    found.append(json.loads(re.findall(r"^CMD (\[.*\])$", text_of("Dockerfile"), re.MULTILINE)[-1])[:1])
    options = re.search(r"CLAUDEMESH_BROKER_OPTIONS=(.*)", text_of("systemd/claudemesh-broker.service"))
    assert options is not None
    return [
        shlex.split(
            re.sub(r"\$\{\w+[^}]*\}", "example.org", shlex.join(one)).replace(
                "'$CLAUDEMESH_BROKER_OPTIONS'", options[1]
            )
        )
        for one in found
    ]


def started_by(unit: Path) -> str:
    """`ExecStart` of a systemd unit; a line that is not of that format is an error."""
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    assert parser["Unit"]["Description"]
    assert parser["Install"]["WantedBy"]
    return parser["Service"]["ExecStart"]


def documents(path: Path) -> list[Any]:
    """Every document of a YAML file."""
    return [one for one in ruamel.yaml.YAML(typ="safe").load_all(path) if one is not None]


def text_of(*names: str) -> str:
    return "\n".join((PACKAGING / name).read_text() for name in names)


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a linter of the development environment."""
    return run(str(Path(sys.executable).with_name(name)), *arguments)


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | variables
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=60, check=False)
