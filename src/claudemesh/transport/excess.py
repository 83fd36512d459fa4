"""Whom to cut off when connections together hold more than there is room for (docs/spec/limits.md §2)."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def largest(held: Mapping[T, int], allowed: int) -> list[T]:
    """Those that hold the most, as few as bring the sum down to `allowed`."""
    excess = sum(held.values()) - allowed
    chosen = []
    for one in sorted(held, key=held.__getitem__, reverse=True) if excess > 0 else ():
        chosen.append(one)
        excess -= held[one]
        if excess <= 0:
            break
    return chosen
