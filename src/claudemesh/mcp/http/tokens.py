"""The tokens: one per client, made once, in a file that only this user can read. No other place ever holds one."""

import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from mcp.server.auth.provider import AccessToken

from claudemesh.daemon.config_dir import PRIVATE_DIRECTORY, PRIVATE_FILE, ConfigDir, mode_problem
from claudemesh.errors import LocalError

TOKEN_BYTES: Final = 32
MIN_TOKEN_CHARACTERS: Final = 32


def token_file(config: ConfigDir, client: str) -> Path:
    """Where the token of a client is."""
    return config.path / "mcp" / f"{client}.token"


def load_tokens(config: ConfigDir, clients: Iterable[str]) -> dict[str, str]:
    """The token of each client, made now where there is none.

    Raises:
        LocalError: `config_mode`, others could read or change one; `config_damaged`, a file holds no token.
    """
    directory = config.path / "mcp"
    directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    _require_private(directory)
    return {client: _load(token_file(config, client)) for client in clients}


class Tokens:
    """Tells by its token who asks; the SDK's middleware refuses whoever has none."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = {client: token.encode() for client, token in tokens.items()}

    async def verify_token(self, token: str) -> AccessToken | None:
        """The client of a token. Each is compared in constant time, and none is passed on."""
        given, found = token.encode(), None
        for client, known in self._tokens.items():
            if hmac.compare_digest(given, known):
                found = client
        return AccessToken(token="", client_id=found, scopes=[]) if found is not None else None


def _load(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
    _require_private(path)
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < MIN_TOKEN_CHARACTERS or not (token.isascii() and token.isprintable()) or " " in token:
        raise LocalError("config_damaged", f"{path} holds no token: delete it, and a new one is made")
    return token


def _require_private(path: Path) -> None:
    problem = mode_problem(path)
    if problem:
        raise LocalError("config_mode", problem)
