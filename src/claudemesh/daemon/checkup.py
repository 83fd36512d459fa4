"""What `claudemesh doctor` asks of the daemon: each check says what was found and what to do."""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Final

from claudemesh import __version__
from claudemesh.daemon.context import Context
from claudemesh.daemon.ipc_server import Reply
from claudemesh.daemon.schema.base import NoArgs
from claudemesh.daemon.schema.upkeep import Check, Checks
from claudemesh.errors import AuditConflict, LocalError, Refused, RosterConflict, Unreachable
from claudemesh.peer import Peer
from claudemesh.peer.views import MeshView
from claudemesh.protocol import limits

LINK_WITHIN_S: Final = 5.0
PRESSING_QUEUE: Final = 1_000


class Checkup:
    """Looks at the daemon and every mesh; changes nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def doctor(self, args: NoArgs, reply: Reply) -> Checks:
        """Every check, in order."""
        checks = [_good("daemon", "", f"process {os.getpid()}, version {__version__}")]
        checks.append(await asyncio.to_thread(_disk, self._context.config.path))
        for peer in self._context.home.peers:
            await reply.progress(f"looking at {peer.alias}")
            checks += await _mesh(peer)
        return Checks(ok=all(check.ok for check in checks), checks=checks)


async def _mesh(peer: Peer) -> list[Check]:
    with contextlib.suppress(Unreachable):
        await peer.wait_connected(LINK_WITHIN_S)
    view, now = await peer.describe_mesh(), time.time_ns() // 1_000_000
    checks = [_broker(view)]
    if view.connected:
        checks += [_clock(view, now), _roster(view, now)]
    checks += [_conflict(view), _audit(view), _keys(view)]
    checks += [_queue(view), _quiet(view), _held(view), await _refused(peer)]
    return checks


def _disk(directory: Path) -> Check:
    probe = directory / f".probe-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(b"x" * 4_096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remedy = LocalError("disk").hint()
        return Check(
            name="disk", mesh="", ok=False, detail=f"{error.strerror}", remedy=remedy, exit_code=LocalError.exit_code
        )
    finally:
        probe.unlink(missing_ok=True)
    return _good("disk", "", "takes data")


def _broker(view: MeshView) -> Check:
    if view.connected:
        return _good("broker", view.alias, f"linked to {view.broker_url}, whose key is the one in the roster")
    code = view.down.split(" ", 1)[0] or "broker_unreachable"
    if code == "revoked":
        remedy = f"The broker says that this device was removed from the mesh. {Refused('removed').hint()}"
    else:
        remedy = Unreachable.CODES.get(code, "See docs/spec/errors.md for this code.")
    return _failed(
        "broker", view.alias, f"no link to {view.broker_url}: {view.down or code}", remedy, Unreachable.exit_code
    )


def _clock(view: MeshView, now: int) -> Check:
    """The newest signed head was signed a short time ago by the broker's clock, or the clocks differ."""
    ahead_ms = view.head_at - now
    if ahead_ms > limits.CLOCK_SKEW_MS:
        detail = f"the broker's clock is {ahead_ms // limits.SECOND_MS} s ahead of this machine's"
        return _failed("clock", view.alias, detail, "Set the clock of this machine, or tell the broker's operator.", 3)
    return _good("clock", view.alias, "agrees with the broker's within 5 minutes")


def _roster(view: MeshView, now: int) -> Check:
    age_ms = now - view.head_at
    if age_ms > limits.STALE_HEAD_MS + limits.CLOCK_SKEW_MS:
        detail = f"the broker signed the newest head {age_ms // limits.MINUTE_MS} minutes ago"
        remedy = "Check the clock of this machine; if it is right, the broker holds newer entries back: compare heads."
        return _failed("roster", view.alias, detail, remedy, RosterConflict.exit_code)
    return _good("roster", view.alias, f"entry {view.seq}, signed {max(age_ms, 0) // limits.SECOND_MS} s ago")


def _conflict(view: MeshView) -> Check:
    if view.frozen:
        hint = RosterConflict.CODES.get(view.frozen, RosterConflict.CODES["frozen"])
        return _failed("history", view.alias, f"frozen: {view.frozen}", hint, RosterConflict.exit_code)
    return _good("history", view.alias, "the broker has not contradicted itself")


def _audit(view: MeshView) -> Check:
    if view.audit:
        detail = f"the broker's audit log contradicts what it acknowledged: {view.audit}"
        return _failed("audit", view.alias, detail, AuditConflict.CODES[view.audit], AuditConflict.exit_code)
    return _good("audit", view.alias, "the audit log holds what the broker acknowledged, as far as it was read")


def _keys(view: MeshView) -> Check:
    if view.foreign_card:
        detail = f"card {view.foreign_card} of this device was published and not made here: its keys are used twice"
        remedy = (
            "If these keys were restored from an older backup, nothing is wrong. If not, somebody has a copy: remove"
            " this device from another one (claudemesh revoke NAME --reason stolen) and join anew."
        )
        return _failed("keys", view.alias, detail, remedy, RosterConflict.exit_code)
    return _good("keys", view.alias, "no card was published that this device did not make")


def _queue(view: MeshView) -> Check:
    if view.connected and view.outbox_open > PRESSING_QUEUE:
        detail = f"{view.outbox_open} messages have not left this machine"
        return _failed("outbox", view.alias, detail, "See claudemesh message ID for what holds one back.", 6)
    return _good("outbox", view.alias, f"{view.outbox_open} messages wait")


def _quiet(view: MeshView) -> Check:
    """For information: somebody wanted it so, and may have forgotten."""
    if view.paused_since:
        return _good("agents", view.alias, "paused: no agent here gets or sends anything until claudemesh resume")
    if view.dnd_since:
        return _good("agents", view.alias, "not to be disturbed: they get only what may interrupt (claudemesh dnd off)")
    return _good("agents", view.alias, "get and send what they may")


def _held(view: MeshView) -> Check:
    detail = f"{view.held} messages of agents wait for you (claudemesh hold list)" if view.held else "nothing is held"
    return _good("held", view.alias, detail)


async def _refused(peer: Peer) -> Check:
    """Envelopes that were refused for good: for information, since refusing them was right."""
    counts = [f"{row.envelopes} × {row.code}" for row in await peer.quarantine()]
    return _good("refused", peer.alias, ", ".join(counts) or "no envelope was refused")


def _good(name: str, mesh: str, detail: str) -> Check:
    return Check(name=name, mesh=mesh, ok=True, detail=detail, remedy="", exit_code=0)


def _failed(name: str, mesh: str, detail: str, remedy: str, exit_code: int) -> Check:
    return Check(name=name, mesh=mesh, ok=False, detail=detail, remedy=remedy, exit_code=exit_code)
