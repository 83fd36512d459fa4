"""What arguments and answers are made of."""

from typing import Annotated

import msgspec

Name = Annotated[str, msgspec.Meta(max_length=256)]
Path = Annotated[str, msgspec.Meta(max_length=4_096)]
Text = Annotated[str, msgspec.Meta(max_length=512 << 10)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Args(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of arguments. A field that is not known is refused: a misspelt option must not be ignored."""


class InMesh(Args, frozen=True, kw_only=True):
    """Arguments of an operation in one mesh: `mesh` is an alias or a mesh id's beginning, empty when there is one."""

    mesh: Name = ""
    """Alias of a mesh or the first 8 digits of its id; empty when there is only one."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of answers, events and what they hold."""


class NoArgs(Args, frozen=True, kw_only=True):
    """No arguments."""


class Done(Answer, frozen=True, kw_only=True):
    """It took effect; there is no more to say."""
