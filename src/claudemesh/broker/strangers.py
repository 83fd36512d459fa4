"""Links that are no member's: holders of an invite link or a recovery key, founders (docs/spec/broker.md §2)."""

from claudemesh.broker.core import Core
from claudemesh.broker.directory import Mesh
from claudemesh.broker.policy import request_bucket
from claudemesh.broker.service import refused
from claudemesh.errors import HandshakeRefused, LocalError, Refused
from claudemesh.protocol.codec import encode_message
from claudemesh.protocol.link import BrokerLink, ClaimReceived, LinkState
from claudemesh.protocol.messages import Append, Appended, Claimed, Message, PeerMessage, Ping, Pong, Sync
from claudemesh.transport.listener import Stream
from claudemesh.types import InviteId


class Uploads:
    """How many founders upload at this moment: each may send large frames, and nobody knows them."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._now: dict[BrokerLink, str] = {}

    def enter(self, proto: BrokerLink, address: str, *, is_unix: bool) -> None:
        """Raises `Refused` when there are too many, or too many of this address: nobody takes up all of them."""
        crowded = not is_unix and sum(one == address for one in self._now.values()) >= self._most_per_address
        if len(self._now) >= self._most or crowded:
            raise Refused("rate_limited", "too many uploads", retry_after_ms=5_000)
        self._now[proto] = address

    def leave(self, proto: BrokerLink) -> None:
        """An upload has ended, or was none."""
        self._now.pop(proto, None)


class Stranger:
    """One such link."""

    def __init__(self, core: Core, uploads: Uploads, stream: Stream, proto: BrokerLink) -> None:
        self._core = core
        self._uploads = uploads
        self._stream = stream
        self._proto = proto
        self._mesh: Mesh | None = None
        self._invite = InviteId("")
        self._requests = request_bucket(core.limits, core.clock())

    def wait_ms(self) -> int:
        """How long to wait before the next frame is answered."""
        return self._requests.charge(self._core.clock())

    def end(self) -> None:
        """The link has ended, or has become a member's."""
        self._uploads.leave(self._proto)
        if self._mesh is not None:
            self._mesh.used -= 1
            self._mesh = None

    async def answer(self, event: ClaimReceived | PeerMessage) -> None:
        """Answer one frame.

        Raises:
            Refused, Invalid, LocalError: The handshake failed: the link is to be closed.
        """
        mesh = self._mesh
        if isinstance(event, ClaimReceived):
            await self._claim(event)
        elif isinstance(event, Append) and mesh is None:
            await self._found(event)
        elif mesh is not None and isinstance(event, Append | Sync | Ping):
            try:
                await self._request(mesh, event)
            except (Refused, LocalError) as error:
                self._send(refused(error, rid=getattr(event, "rid", None)))
        else:
            raise HandshakeRefused("handshake_state", type(event).__name__)
        self._stay()

    async def _claim(self, claim: ClaimReceived) -> None:
        core, now = self._core, self._core.clock()
        wait_ms = core.addresses.admit_claim(self._stream.address, claim.invite, now)
        if wait_ms:
            raise Refused("rate_limited", retry_after_ms=wait_ms)
        self._stay()  # to load a long roster may take longer than a stranger may to speak
        mesh_id = await core.store.find_mesh(claim.mesh_prefix)
        mesh = await core.directory.find(mesh_id) if mesh_id is not None else None
        if mesh is None or not mesh.serves(core.id):
            raise Refused("unknown_mesh")
        recovers = claim.invite == mesh.roster.recovery
        state = "open" if recovers else mesh.roster.invite_state(claim.invite, now)
        if state == "unknown":
            raise Refused("invalid", "no_grant")
        self._keep(mesh)
        self._invite = claim.invite
        self._stream.write(self._proto.accept_claim(Claimed(mesh=mesh.id, seq=mesh.roster.seq, state=state)))

    async def _found(self, message: Append) -> None:
        core, address = self._core, self._stream.address
        self._uploads.enter(self._proto, address, is_unix=self._stream.is_unix)
        mesh, seq = await core.ordering.found(
            message.entries, lambda: core.addresses.meshes.take(address, core.clock())
        )
        self._keep(mesh)
        self._proto.accept_genesis()
        self._send(Appended(rid=message.rid, seq=seq))

    async def _request(self, mesh: Mesh, message: Append | Sync | Ping) -> None:
        ordering = self._core.ordering
        if isinstance(message, Ping):
            self._send(Pong())
        elif isinstance(message, Sync):
            if self._core.following is not None:
                await self._core.following.refresh(mesh)
            frame, _ = await ordering.page(mesh, message.seq, message.rid)
            self._stream.write(frame)
        elif self._proto.state is LinkState.CLAIMED:
            seq = await ordering.admit(mesh, message.entries, self._invite)
            self._send(Appended(rid=message.rid, seq=seq, sth=ordering.head(mesh)))
        else:
            self._charge_upload()
            seq = await ordering.append(mesh, message.entries, "founder", None)
            self._send(Appended(rid=message.rid, seq=seq))

    def _charge_upload(self) -> None:
        wait_ms = self._core.addresses.uploads.take(self._stream.address, self._core.clock())
        if wait_ms:
            raise Refused("rate_limited", retry_after_ms=wait_ms)

    def _keep(self, mesh: Mesh) -> None:
        self._mesh = mesh
        mesh.used += 1

    def _stay(self) -> None:
        uploading = self._proto.state is LinkState.UPLOADING
        self._stream.extend(self._core.limits.presence_lease_ms / 1_000, any_size=uploading)

    def _send(self, message: Message) -> None:
        self._stream.write(encode_message(message))
