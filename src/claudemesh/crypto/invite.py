"""Invite links: a mesh id, a seed and, beside the secret, hints for people (docs/spec/invite.md).

    raw  = 0x01 ‖ mesh id[0:16] ‖ seed[16]                      open link, 44 characters
    raw  = 0x02 ‖ mesh id[0:16] ‖ seed[16] ‖ user seed[16]      personal link, 66 characters
    link = "ic://" host "/j#" base64url(raw) [ "." mesh label [ "." inviter label [ "." joiner label ] ] ]

The secret is in the fragment, which no HTTP client sends. The link decrypts nothing: to read, its
holder must first appear in the roster.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

from claudemesh.crypto import primitives, statements
from claudemesh.crypto.primitives import SigningKey
from claudemesh.errors import LinkRefused, Malformed

SEED_BYTES: Final = 16
MAX_LABEL_CHARACTERS: Final = 40
_OPEN: Final = 1
_PERSONAL: Final = 2
_TRAILING: Final = ".,;:!?)>]}\"'”’»*`"
_LEADING: Final = "(<[{\"'“‘«*_`"
_LINK = re.compile(r"(?P<scheme>ic|ic\+ws|ic\+unix|https)://(?P<host>[^#\s]+?)/j/?#(?P<fragment>\S+)\Z", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?\Z")


@dataclass(frozen=True, slots=True)
class InviteLink:
    """A parsed link. `mesh_prefix` is the first half (32 hex digits) of the mesh id."""

    broker_url: str
    mesh_prefix: str
    seed: bytes = field(repr=False)
    user_seed: bytes | None = field(default=None, repr=False)
    mesh_label: str = ""
    inviter_label: str = ""
    joiner_label: str = ""
    """What its maker calls whoever is to join by it."""

    def invite_key(self) -> SigningKey:
        """The Ed25519 pair that signs admissions."""
        return primitives.signing_key(statements.derive(self.seed, "invite-sign"))

    def user_key(self) -> SigningKey | None:
        """The user identity that a personal link hands over."""
        if self.user_seed is None:
            return None
        return primitives.signing_key(statements.derive(self.user_seed, "invite-user"))

    def text(self) -> str:
        """The link as a person passes it on."""
        personal = self.user_seed or b""
        kind = _PERSONAL if personal else _OPEN
        raw = bytes((kind,)) + bytes.fromhex(self.mesh_prefix) + self.seed + personal
        labels = [_quote(self.mesh_label), _quote(self.inviter_label), _quote(self.joiner_label)]
        while labels and not labels[-1]:
            labels.pop()
        return _address(self.broker_url) + "/j#" + ".".join([statements.to_base64url(raw), *labels])


def parse_link(text: str) -> InviteLink:
    """Read a link, even one that a chat program has wrapped, quoted or followed by punctuation.

    Raises:
        LinkRefused: `link_form`, with what is wrong; nothing was contacted. The secret is not quoted.
    """
    compact = _unwrapped("".join(text.split()))
    if not compact:
        raise LinkRefused("link_form", "the link is empty")
    match = _LINK.match(compact)
    if match is None:
        raise LinkRefused("link_form", _why_not_a_link(compact))
    secret, *labels = match["fragment"].split(".")
    raw = _secret_bytes(secret)
    return InviteLink(
        broker_url=_broker_url(match["scheme"].lower(), match["host"]),
        mesh_prefix=raw[1:17].hex(),
        seed=raw[17:33],
        user_seed=raw[33:49] if raw[0] == _PERSONAL else None,
        mesh_label=_label(labels[0]) if labels else "",
        inviter_label=_label(labels[1]) if len(labels) > 1 else "",
        joiner_label=_label(labels[2]) if len(labels) > 2 else "",
    )


def _unwrapped(compact: str) -> str:
    """Take off quotes, brackets, emphasis and punctuation around a link.

    A secret may itself end with "_", so one is taken off at the end only for each at the front.
    """
    bare = compact.lstrip(_LEADING)
    opened = compact[: len(compact) - len(bare)]
    bare = bare.rstrip(_TRAILING)
    for _ in range(opened.count("_")):
        bare = bare.removesuffix("_").rstrip(_TRAILING)
    return bare


def _secret_bytes(secret: str) -> bytes:
    expected = {44: _OPEN, 66: _PERSONAL}
    if len(secret) not in expected:
        raise LinkRefused("link_form", f"the part after # has {len(secret)} characters instead of 44 or 66")
    try:
        raw = statements.from_base64url(secret)
    except Malformed as error:
        raise LinkRefused("link_form", "the part after # has characters that do not belong there") from error
    if raw[0] != expected[len(secret)]:
        raise LinkRefused("link_form", "the part after # starts with an unknown version; upgrade claudemesh")
    return raw


def _why_not_a_link(compact: str) -> str:
    if "#" not in compact:
        return "there is no # in it: its secret part is missing"
    if "://" not in compact:
        return "it does not start with ic://"
    if "/j#" not in compact and "/j/#" not in compact:
        return "there is no /j before the #"
    return "it is not of the form ic://HOST/j#SECRET"


def _broker_url(scheme: str, host: str) -> str:
    if scheme == "ic+unix":
        return "unix://" + unquote(host)
    if not _HOST.match(host):
        raise LinkRefused("link_form", "the host name has characters that do not belong there")
    return f"{'ws' if scheme == 'ic+ws' else 'wss'}://{host}/ws"


def _address(broker_url: str) -> str:
    if broker_url.startswith("unix://"):
        return "ic+unix://" + quote(broker_url.removeprefix("unix://"), safe="/")
    scheme, rest = broker_url.split("://", 1)
    return ("ic+ws://" if scheme == "ws" else "ic://") + rest.removesuffix("/").removesuffix("/ws")


def _quote(label: str) -> str:
    return quote(label[:MAX_LABEL_CHARACTERS], safe="-_~").replace(".", "%2E")


def _label(quoted: str) -> str:
    return "".join(character for character in unquote(quoted)[:MAX_LABEL_CHARACTERS] if character.isprintable())
