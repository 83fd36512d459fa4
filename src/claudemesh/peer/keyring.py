"""This peer's own keys in one mesh, over the keystore: what signs for it, and what opens its messages."""

from collections.abc import Mapping
from itertools import pairwise

import msgspec

from claudemesh.crypto import primitives
from claudemesh.crypto.primitives import SigningKey
from claudemesh.peer.config import BoxSecret, BrokerAddress, LogPin, MeshKeys, UserKeys, make_box
from claudemesh.peer.keystore import Keystore
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import limits
from claudemesh.types import BoxId, MeshId, PeerId, UnixMillis


class Keyring:
    """The keys of one peer; every change is on disk before it is used."""

    def __init__(self, keystore: Keystore, mesh: MeshId, runtime: Runtime) -> None:
        self._keystore = keystore
        self._runtime = runtime
        self._keys = keystore.mesh(mesh)
        self.sign: SigningKey = self._keys.peer.key()
        self._secrets = self._read_secrets()

    @property
    def keys(self) -> MeshKeys:
        return self._keys

    @property
    def member(self) -> PeerId:
        return self._keys.member

    @property
    def user(self) -> UserKeys:
        """The identity in this mesh; its secret is absent on a linked device."""
        return self._keys.user or self._keystore.identity(self._runtime)

    @property
    def current(self) -> BoxSecret:
        """The newest box key: its number is that of the newest card."""
        return self._keys.peer.boxes[0]

    def box_secret(self, box: str) -> bytes | None:
        """The secret of one of our box keys, or None: then nothing else is tried."""
        return self._secrets.get(BoxId(box))

    @property
    def box_secrets(self) -> Mapping[BoxId, bytes]:
        """Every box key of ours that is not deleted, with its secret."""
        return self._secrets

    def rotation_due(self, now: UnixMillis) -> bool:
        """Whether a week has passed since the newest box key was made."""
        return now - self.current.since >= limits.CARD_ROTATION_MS

    def rotate(self, now: UnixMillis, above: int = 0) -> BoxSecret:
        """Make the next box key; the old secret is kept while messages to it may still arrive.

        Args:
            above: A number that its card has to exceed, besides those of this device's own cards.
        """
        box = make_box(max(self.current.cs, above) + 1, self._runtime.entropy(32), now)
        self._save_boxes([box, *self._keys.peer.boxes])
        return box

    def drop_superseded(self, now: UnixMillis) -> bool:
        """Delete box secrets that were superseded longer ago than the grace: nobody opens those messages again."""
        boxes = self._keys.peer.boxes
        kept = boxes[:1] + [old for newer, old in pairwise(boxes) if now - newer.since <= limits.BOX_SECRET_GRACE_MS]
        if len(kept) == len(boxes):
            return False
        self._save_boxes(kept)
        primitives.forget_shared_keys()
        return True

    def save_progress(self, pin: LogPin, broker: BrokerAddress) -> None:
        """Remember how far the roster went, and which broker it names now."""
        if (self._keys.log, self._keys.broker) != (pin, broker):
            self._save(msgspec.structs.replace(self._keys, log=pin, broker=broker))

    def save_labels(self, name: str, device: str) -> None:
        """Remember what this peer calls itself in this mesh."""
        if (self._keys.name, self._keys.device) != (name, device):
            self._save(msgspec.structs.replace(self._keys, name=name, device=device))

    def _save_boxes(self, boxes: list[BoxSecret]) -> None:
        self._save(msgspec.structs.replace(self._keys, peer=msgspec.structs.replace(self._keys.peer, boxes=boxes)))
        self._secrets = self._read_secrets()

    def _save(self, keys: MeshKeys) -> None:
        self._keystore.put_mesh(keys)
        self._keys = keys

    def _read_secrets(self) -> dict[BoxId, bytes]:
        return {BoxId(box.box): bytes.fromhex(box.box_sk) for box in self._keys.peer.boxes}
