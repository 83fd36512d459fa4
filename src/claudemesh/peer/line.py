"""One dialled link to a broker: frames out, answers matched by request number, the rest to a handler.

The protocol of the link is `protocol.link.PeerLink`; this is the shell that reads, writes and waits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol, TypeVar

import msgspec

from claudemesh.errors import HandshakeRefused, Malformed, Unreachable
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol.link import Founder, Greeted, LinkHolder, Member, Opened, PeerLink, refusal
from claudemesh.protocol.messages import (
    Append,
    Appended,
    Attest,
    Audit,
    BrokerMessage,
    Cards,
    Claimed,
    Closing,
    GetAudit,
    GetCards,
    ListPeers,
    Log,
    Message,
    Ok,
    Peers,
    PutCard,
    PutEpoch,
    Refused,
    Subscribe,
    Sync,
)
from claudemesh.types import BrokerId, UnixMillis

Request = Append | Sync | Attest | PutCard | GetCards | ListPeers | GetAudit | PutEpoch | Subscribe
Answer = Log | Appended | Cards | Peers | Audit | Ok
A = TypeVar("A", bound=Answer)


class Pipe(Protocol):
    """A byte pipe to a broker; see `claudemesh.transport`."""

    async def send(self, frame: bytes) -> None: ...
    async def recv(self) -> bytes: ...
    async def close(self) -> None: ...


Connect = Callable[[str], Awaitable[Pipe]]
Handler = Callable[[BrokerMessage], None]


class Line:
    """An open link. `run` reads it; until then, and after it ended, requests wait or fail."""

    def __init__(self, pipe: Pipe, link: PeerLink, runtime: Runtime) -> None:
        self._pipe = pipe
        self._link = link
        self._runtime = runtime
        self._numbers = count(1)
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._closed = False
        self.closing: Closing | None = None
        """What the broker said before it closed, if it did."""

    @property
    def broker(self) -> BrokerId:
        assert self._link.broker is not None
        return self._link.broker

    async def handshake(self) -> Opened | Claimed | Greeted:
        """Answer the challenge, and wait until the broker lets this peer in.

        Raises:
            HandshakeRefused: The broker is not the one it must be, or is late.
            Refused: It said no, for example `unknown_mesh`.
            Unreachable: The link was lost.
        """
        while True:
            timeout_ms = self._link.next_deadline() - self._runtime.now()
            try:
                async with asyncio.timeout(max(timeout_ms, 1) / 1000):
                    frame = await self._pipe.recv()
            except TimeoutError as error:
                raise HandshakeRefused("handshake_timeout") from error
            event = self._link.receive(frame, self._runtime.now())
            match event:
                case Greeted(reply=None):
                    return event
                case Greeted(reply=bytes() as reply):
                    await self._pipe.send(reply)
                case Opened() | Claimed():
                    return event
                case _:
                    raise HandshakeRefused("handshake_state", type(event).__name__)

    async def run(self, handler: Handler) -> None:
        """Read until the link ends, which raises; frames that answer no request go to `handler`, in order."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(handler))
                group.create_task(self._keep_alive())
        finally:
            self.fail_pending()

    async def post(self, message: Message) -> None:
        """Send a message that has no answer by number."""
        await self._pipe.send(self._link.encode(message, self._runtime.now()))

    async def post_frame(self, frame: bytes) -> None:
        """Send a frame that was encoded, and journaled, before."""
        self._link.sent_at = self._runtime.now()
        await self._pipe.send(frame)

    async def request(self, message: Request, answer: type[A]) -> A:
        """Send `message` under a request number of this line's choice, and wait for its answer.

        Raises:
            Refused: The broker said no.
            Unreachable: `link_lost` or `timeout`; whether the request took effect is unknown.
        """
        if self._closed:
            raise Unreachable("link_lost")
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            await self.post(msgspec.structs.replace(message, rid=number))
            async with asyncio.timeout(self._runtime.tempo.request_timeout_ms / 1000):
                received = await future
        except TimeoutError as error:
            raise Unreachable("timeout", "the broker did not answer") from error
        finally:
            self._pending.pop(number, None)
        if not isinstance(received, answer):
            raise Malformed("bad_frame", f"{type(received).__name__} answers another request")
        return received

    def fail_pending(self) -> None:
        """The link ended: nobody will answer."""
        self._closed = True
        for future in self._pending.values():
            if not future.done():
                future.set_exception(Unreachable("link_lost"))
        self._pending.clear()

    async def close(self) -> None:
        """Close the link."""
        self.fail_pending()
        await self._pipe.close()

    async def _read(self, handler: Handler) -> None:
        while True:
            frame = await self._pipe.recv()
            message = self._link.receive(frame, self._runtime.now())
            if isinstance(message, Greeted | Opened):
                raise HandshakeRefused("handshake_state")
            if isinstance(message, Closing):
                self.closing = message
                raise Unreachable("link_lost", message.code)
            if not self._settle(message):
                handler(message)

    def _settle(self, message: BrokerMessage) -> bool:
        """Give an answer to whoever asked for it; False when nobody did."""
        match message:
            case Log(rid=int() as number) | Refused(rid=int() as number):
                pass
            case Appended(rid=number) | Cards(rid=number) | Peers(rid=number) | Audit(rid=number) | Ok(rid=number):
                pass
            case _:
                return False
        future = self._pending.pop(number, None)
        if future is None or future.done():
            return isinstance(message, Refused | Ok)
        if isinstance(message, Refused):
            future.set_exception(refusal(message))
        else:
            future.set_result(message)
        return True

    async def _keep_alive(self) -> None:
        while True:
            due_ms = self._link.next_deadline() - self._runtime.now()
            await asyncio.sleep(max(due_ms, 1) / 1000)
            ping = self._link.handle_deadline(self._runtime.now())
            if ping is not None:
                await self._pipe.send(ping)


async def dial(
    connect: Connect, url: str, broker: BrokerId | None, dialler: Member | LinkHolder | Founder, runtime: Runtime
) -> tuple[Line, Opened | Claimed | Greeted]:
    """Connect and complete the handshake; the caller closes the line.

    Raises:
        Unreachable, HandshakeRefused, Refused, Malformed: As `Line.handshake`; the pipe is closed.
    """
    pipe = await connect(url)
    link = PeerLink(url, broker, dialler, runtime.entropy(16), UnixMillis(runtime.now()))
    line = Line(pipe, link, runtime)
    try:
        return line, await line.handshake()
    except BaseException:
        await line.close()
        raise
