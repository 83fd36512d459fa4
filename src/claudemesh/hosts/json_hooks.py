"""Hooks in a settings object of the shape that hosts share: `{"hooks": {EVENT: [{"hooks": [HOOK, …]}, …]}}`."""

import json
from typing import Any, Final

from claudemesh.hosts.base import SERVER

TOOL: Final = "mesh_hook"
"""The tool of our server that hooks call where the host can do that; it is not listed to the model."""

Groups = dict[str, dict[str, Any]]


def with_hooks(settings: dict[str, Any], own: Groups, host: str) -> dict[str, Any]:
    """Settings with our hooks, one group for each event, after everybody else's."""
    found = without_hooks(settings, host)
    hooks = dict(found.get("hooks", {}))
    for event, group in own.items():
        hooks[event] = [*hooks.get(event, []), group]
    return found | {"hooks": hooks}


def without_hooks(settings: dict[str, Any], host: str) -> dict[str, Any]:
    """Settings without any hook of ours; an event or object that held nothing else goes with it."""
    found: dict[str, Any] = json.loads(json.dumps(settings))
    hooks = found.get("hooks")
    if not isinstance(hooks, dict) or not hooks:
        return found
    kept = {event: _others(groups, host) for event, groups in hooks.items()}
    found["hooks"] = {event: groups for event, groups in kept.items() if groups or not hooks[event]}
    if not found["hooks"]:
        del found["hooks"]
    return found


def has_hooks(settings: dict[str, Any], host: str) -> bool:
    """Whether there is a hook of ours."""
    return without_hooks(settings, host) != settings


def _others(groups: Any, host: str) -> Any:
    return [one for one in groups if not _is_ours(one, host)] if isinstance(groups, list) else groups


def _is_ours(group: Any, host: str) -> bool:
    hooks = group.get("hooks", []) if isinstance(group, dict) else []
    return bool(hooks) and all(isinstance(one, dict) and _is_our_hook(one, host) for one in hooks)


def _is_our_hook(hook: dict[str, Any], host: str) -> bool:
    if hook.get("type") == "mcp_tool":
        return hook.get("server") == SERVER and hook.get("tool") == TOOL
    command = str(hook.get("command", ""))
    return SERVER in command and command.endswith(f"hook {host}")
