"""How a channel or group is named on the command line, and what is shown of what was done with it."""

from collections.abc import Iterator

from claudemesh.cli.output import ago, fingerprint, now_ms, table
from claudemesh.daemon.ipc import Object
from claudemesh.daemon.rendering import channel_label, visible
from claudemesh.errors import UsageError


def signed(name: str, sign: str, *, or_group: bool = False) -> str:
    """The address of a channel or group that a person named, with or without its sign."""
    name = name.strip()
    if name[:1] == sign or (or_group and name[:1] == "@"):
        return name
    if name[:1] == "@":
        raise UsageError("usage", f"{name} is a group; see claudemesh group")
    if name[:1] == "#":
        raise UsageError("usage", f"{name} is a channel; see claudemesh channel")
    return sign + name


def created_lines(answer: Object) -> Iterator[str]:
    """What was made, and what one does next."""
    one = answer["channel"]
    name = visible(one["name"])
    what = {"open": "open to everybody in", "private": "a private channel of", "group": "a group of"}[one["kind"]]
    yield f"created {name}, {what} {visible(answer['mesh'])}"
    if one["kind"] == "private":
        yield f"next: claudemesh channel add {channel_label(one['name'])[1:]} PEER"
    else:
        yield f"next: claudemesh send '{channel_label(one['name'])}' TEXT"


def listed_lines(answer: Object) -> list[str]:
    """A table of channels or groups."""
    if not answer["channels"]:
        return ["no group yet: claudemesh group create NAME"]
    return table(("NAME", "KIND", "JOINED", "MEMBERS", "TOPIC"), [_row(one) for one in answer["channels"]])


def joined_lines(answer: Object) -> Iterator[str]:
    """That posts come here."""
    name = visible(answer["channel"]["name"])
    joined = f"joined {name}: what is posted from now on comes here"
    yield joined if answer["changed"] else f"nothing to do: you are in {name} already"


def left_lines(answer: Object) -> Iterator[str]:
    """That no posts come here."""
    name = visible(answer["channel"]["name"])
    yield f"left {name}" if answer["changed"] else f"nothing to do: you are not in {name}"


def member_lines(answer: Object) -> Iterator[str]:
    """A table of who can read."""
    now, known = now_ms(), answer["presence"]
    rows = [
        (
            one["address"],
            fingerprint(one["key"]),
            one["trust"],
            "?" if not known else "yes" if one["online"] else ago(one["last_seen_at"], now),
        )
        for one in answer["members"]
    ]
    yield from table(("ADDRESS", "KEY", "TRUST", "ONLINE"), rows)
    if answer["channel"]["kind"] == "open":
        yield f"{visible(answer['channel']['name'])} is open: every peer of the mesh may read it."
    if not known:
        yield "The broker could not be asked who is online."


def added_lines(answer: Object) -> Iterator[str]:
    """Who is new."""
    name = visible(answer["channel"]["name"])
    if not answer["added"]:
        yield f"nobody was added: they are in {name} already"
        return
    yield f"added to {name}: {_listed(answer['added'])}"
    command = f"claudemesh channel share '{channel_label(answer['channel']['name'])}' PEER"
    yield f"They read nothing from before, unless you share it: {command}"


def removed_lines(answer: Object) -> Iterator[str]:
    """Who is out, and what that is worth already."""
    name = visible(answer["channel"]["name"])
    if not answer["removed"]:
        yield f"nobody was removed: they are not in {name}"
        return
    secret = "its secret is replaced" if answer["rotated"] else "its secret is replaced before the next post"
    yield f"removed from {name}: {_listed(answer['removed'])}; {secret}"


def _row(one: Object) -> tuple[str, ...]:
    return one["name"], one["kind"], "yes" if one["joined"] else "no", str(one["members"]), one["topic"]


def _listed(addresses: list[str]) -> str:
    return ", ".join(visible(one) for one in addresses)
