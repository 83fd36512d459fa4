"""The causal chain in a signed header: which message began a conversation, and how many answers lie between.

Source: docs/spec/holding.md §1. A message that a program or an agent writes because of others names where that began
(`root`) and how far it is from there (`hop`). One that a person writes names nothing: it is a beginning.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from claudemesh.types import MessageId

MAX_HOP: Final = 1_000_000
"""Where a count stays: a header that claims more is read as this."""


class Chain(NamedTuple):
    """Where a message stands in a conversation."""

    root: MessageId
    """Id of the first message."""
    hop: int
    """How many answers lie between it and this one, from 0."""


class Cause(NamedTuple):
    """A message that another one is written because of."""

    id: MessageId
    chain: Chain | None
    """As its signed header states it; None where a person wrote it."""


def begin(message_id: MessageId) -> Chain:
    """The chain of an agent's message that nothing caused."""
    return Chain(message_id, 0)


def answer(cause: Cause) -> Chain:
    """The chain of a message that is written because of another."""
    if cause.chain is None:
        return Chain(cause.id, 1)
    return Chain(cause.chain.root, min(cause.chain.hop + 1, MAX_HOP))


def deepest(causes: Iterable[Cause]) -> Cause | None:
    """Of several causes the one that is furthest from its beginning: a loop must not get younger by company."""
    return max(causes, key=lambda cause: cause.chain.hop if cause.chain is not None else -1, default=None)


def read(header: Mapping[str, Any]) -> Chain | None:
    """The chain that a header in the form of docs/spec/envelope.md §1 states.

    Returns:
        None where it states none. Where it states one field only, the other is what a beginning has.
    """
    root, hop = header.get("root"), header.get("hop")
    if root is None and hop is None:
        return None
    return Chain(MessageId(root or header["id"]), min(max(hop or 0, 0), MAX_HOP))
