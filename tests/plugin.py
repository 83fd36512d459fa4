"""The plugin's hooks are made from the code: `python -m tests.plugin` writes them, and a test compares."""

import json
from pathlib import Path
from typing import Any

from claudemesh.daemon.config_dir import ConfigDir
from claudemesh.hosts.base import Place
from claudemesh.hosts.claude_code import own_hooks

HOOKS = Path(__file__).resolve().parents[1] / "plugin" / "plugins" / "mesh" / "hooks" / "hooks.json"
SERVER = "plugin:mesh:claudemesh"
"""What Claude Code calls the server of a plugin."""


def hooks() -> str:
    """The hooks of `claudemesh install`, with the plugin's server in place of the installed one."""
    nowhere = Path("/")
    own = own_hooks(Place("project", nowhere, nowhere, {}, ConfigDir(nowhere)))
    content: dict[str, Any] = {"description": "Put peers' messages before the model", "hooks": {}}
    for event, group in own.items():
        given = [one | ({"server": SERVER} if one["type"] == "mcp_tool" else {}) for one in group["hooks"]]
        content["hooks"][event] = [group | {"hooks": given}]
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    HOOKS.write_text(hooks())
