"""The parts of a broker that its use cases share; only app.py builds them."""

from collections.abc import Callable
from dataclasses import dataclass

from claudemesh.broker.directory import Directory
from claudemesh.broker.exchange import Exchange
from claudemesh.broker.following import Following
from claudemesh.broker.heart import Heart
from claudemesh.broker.hints import Hints
from claudemesh.broker.leasing import Leasing, Spawn
from claudemesh.broker.logs import Log
from claudemesh.broker.metrics import Metrics
from claudemesh.broker.ordering import Ordering
from claudemesh.broker.policy import AddressPolicy, Limits
from claudemesh.broker.presence import Presence
from claudemesh.broker.store.base import Store
from claudemesh.crypto.primitives import SigningKey
from claudemesh.types import BrokerId, UnixMillis


@dataclass(frozen=True, slots=True)
class Core:
    """One broker, without the sockets."""

    key: SigningKey
    limits: Limits
    store: Store
    directory: Directory
    ordering: Ordering
    exchange: Exchange
    leasing: Leasing
    presence: Presence
    addresses: AddressPolicy
    metrics: Metrics
    log: Log
    clock: Callable[[], UnixMillis]
    spawn: Spawn
    heart: Heart
    hints: Hints
    following: Following | None
    """There when other nodes use the store too."""

    @property
    def is_alone(self) -> bool:
        """Whether nobody else uses the store: what is in memory is the truth then."""
        return self.following is None

    @property
    def id(self) -> BrokerId:
        """The broker's public key."""
        return BrokerId(self.key.public)
