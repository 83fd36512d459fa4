"""Two terminals on one machine, as docs/walkthrough.md shows them; the run leaves that page's transcript in build/."""

from pathlib import Path

from tests.hosts import lab
from tests.hosts.claude import Claude
from tests.hosts.simulated_anthropic import last_tool_result, simulated_anthropic
from tests.hosts.simulated_models import Block, Body, Call, Say
from tests.processes import machine, wait_until

TRANSCRIPT = lab.ROOT / "build" / "walkthrough.txt"
QUESTION = "Which field has the total of an invoice?"
ANSWER = "total_cents, an integer, since v2 of the API."


def test_two_terminals_on_one_machine(tmp_path: Path) -> None:
    """One agent asks another one, which is idle, and goes on with its answer."""
    models = simulated_anthropic(frontend=_frontend, backend=_backend)
    with machine(tmp_path, "you") as one:
        frontend = Claude.on(one, models, "frontend")
        backend = Claude.on(one, models, "backend")
        said = [("claudemesh up --name you --device laptop", _up(frontend))]
        said.append(("claudemesh install claude-code --allow-tools --yes", _install(frontend)))
        try:
            first, second = frontend.open(), backend.open()
            wait_until(lambda: len(_sessions(frontend)) == 2, "both sessions are in the mesh")
            said.append(("claudemesh peers", frontend.mesh("peers").stdout))
            first.type("Show invoices in the table. Ask the backend session what you do not know.")
            first.wait_for("Done: the table shows", 60)
            second.wait_for("I told the frontend session", 60)
            screens = {
                "terminal 1: claude, in frontend/": first.screen,
                "terminal 2: claude, in backend/": second.screen,
            }
            said.append(("claudemesh statusline", frontend.mesh("statusline").stdout))
        finally:
            for each in (frontend, backend):
                each.close()
            models.close()

    assert not models.errors
    assert ANSWER in screens["terminal 1: claude, in frontend/"]
    _write(said, screens, str(tmp_path))


def _frontend(body: Body, number: int) -> list[Block]:
    if number == 0:
        return [Call("mcp__claudemesh__mesh_ask", {"to": "backend", "question": QUESTION})]
    if number == 1:
        assert ANSWER in last_tool_result(body)
        return [Say(f"The backend session says: {ANSWER} Done: the table shows total_cents / 100.")]
    return [Say("ok")]


def _backend(body: Body, number: int) -> list[Block]:
    if number == 0:
        text = str(body["messages"])
        message_id = text.split("--- message ")[1].split("\\n")[0].split()[0]
        return [Call("mcp__claudemesh__mesh_send", {"to": "frontend", "reply_to": message_id, "text": ANSWER})]
    return [Say("I told the frontend session which field has the total.")]


def _up(claude: Claude) -> str:
    return claude.mesh("up", "--name", "you", "--device", "laptop").stdout


def _install(claude: Claude) -> str:
    return claude.mesh("install", "claude-code", "--allow-tools", "--yes").stdout


def _sessions(claude: Claude) -> list[str]:
    (you,) = claude.machine.ok("peers")["peers"]
    return [one["label"] for one in you["sessions"] if one["label"] in ("frontend", "backend")]


def _write(said: list[tuple[str, str]], screens: dict[str, str], home: str) -> None:
    commands = "\n\n".join(f"$ {command}\n{answer.strip()}" for command, answer in said)
    shown = "\n\n".join(f"── {title} " + "─" * 60 + f"\n{_lines(screen)}" for title, screen in screens.items())
    TRANSCRIPT.parent.mkdir(exist_ok=True)
    TRANSCRIPT.write_text(f"{commands}\n\n{shown}\n".replace(f"{home}/you", "~"))


def _lines(screen: str) -> str:
    return "\n".join(line.rstrip() for line in screen.splitlines() if line.strip())
