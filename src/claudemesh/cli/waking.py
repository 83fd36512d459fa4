"""The live wake test of `claudemesh doctor --wake`: one message on the real path, rung by rung, with times."""

import time
from typing import Final

from claudemesh.cli.output import now_ms
from claudemesh.cli.verb import Verb
from claudemesh.daemon.ipc import Object
from claudemesh.errors import UsageError

TEXT: Final = "A test by `claudemesh doctor`: nothing is asked of you. Say in one word that you saw it."
POLL_S: Final = 0.25
STAGES: Final = ("accepted", "offered", "read")
"""A message to this machine itself is stored where it was sent from: nobody states that it was delivered."""
REMEDIES: Final = {
    "accepted": "The broker did not take it: see the checks above.",
    "offered": "No rung took it: is the session idle, and does its host run our hooks? See docs/hosts.md.",
    "read": "It was handed to the host, whose model has not answered yet: see how the session stands.",
}


def wake(verb: Verb, label: str, within_s: int) -> list[Object]:
    """Send to a session of this machine and follow the message as far as it comes.

    Returns:
        One check for each rung, in order; those after a rung that failed are left out.

    Raises:
        UsageError: There is no such session.
    """
    agent = _find(verb.ask("agent.list")["agents"], label)
    began = now_ms()
    sent = verb.ask("send", to=agent["addresses"][0], text=TEXT, priority="next")
    reached, deadline = dict[str, Object](), time.monotonic() + within_s
    while time.monotonic() < deadline and "read" not in reached:
        for step in verb.ask("message", id=sent["id"], mesh=sent["mesh"])["steps"]:
            reached.setdefault(str(step["stage"]), step)
        time.sleep(POLL_S)
    return _checks(agent, reached, began, within_s)


def _find(agents: list[Object], label: str) -> Object:
    fitting = [one for one in agents if label in (one["label"], *one["addresses"]) and one["addresses"]]
    if not fitting:
        known = (
            ", ".join(one["label"] for one in agents) or "none is open; start an agent that is set up, then try again"
        )
        raise UsageError("usage", f"there is no session {label!r} of an agent here: {known}")
    return fitting[0]


def _checks(agent: Object, reached: dict[str, Object], began: int, within_s: int) -> list[Object]:
    checks = []
    for stage in STAGES:
        step = reached.get(stage)
        detail = f"{_way(step)} after {step['at'] - began} ms" if step else f"not within {within_s} s"
        checks.append(_check(f"wake {agent['label']}: {stage}", detail, ok=step is not None, remedy=REMEDIES[stage]))
        if step is None:
            break
    return checks


def _way(step: Object) -> str:
    return f"by {step['code']}" if step.get("code") else "done"


def _check(name: str, detail: str, *, ok: bool, remedy: str) -> Object:
    described = {"name": name, "mesh": "", "ok": ok, "detail": detail, "remedy": "" if ok else remedy}
    return described | {"exit_code": 0 if ok else 6}
