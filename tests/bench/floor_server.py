"""The floor: the same frames between the same links on the same stack, without storage, signatures or rules.

A `hello` frame names a mailbox; each `send` is decoded with the broker's own codec, answered with one
`accepted` and forwarded as one `push`, a `post` as one to every other link; an `ack` is decoded and forgotten. Run as
`python -m tests.bench.floor_server`; it prints its port.
"""

import asyncio

import msgspec
import uvloop
from aiohttp import WSMsgType, web

from claudemesh.protocol import codec
from claudemesh.protocol.messages import Ack, Post, Send

_SIGNATURE = "0" * 128
_NO_HASH = "0" * 64


class Greeting(msgspec.Struct, tag_field="t", tag="hello"):
    """The first frame of a link: whose mailbox it is."""

    member: str


async def serve_link(request: web.Request) -> web.WebSocketResponse:
    """Route the frames of one link."""
    links: dict[str, web.WebSocketResponse] = request.app["links"]
    socket = web.WebSocketResponse(compress=False, decode_text=False)
    await socket.prepare(request)
    greeting = msgspec.json.decode((await socket.receive()).data, type=Greeting)
    links[greeting.member] = socket
    await socket.send_frame(b'{"t":"hello_ack"}', WSMsgType.TEXT)
    q = 0
    async for received in socket:
        frame: bytes = received.data
        match codec.decode_peer_message(frame):
            case Send() as message:
                q += 1
                await socket.send_frame(accepted(message), WSMsgType.TEXT)
                push = b'{"t":"push","d":[{"q":%d,"at":1800000000000,"e":%b}]}' % (q, frame)
                await links[message.to].send_frame(push, WSMsgType.TEXT)
            case Post() as message:
                q += 1
                await socket.send_frame(accepted(message), WSMsgType.TEXT)
                push = b'{"t":"push","d":[{"q":%d,"at":1800000000000,"e":%b}]}' % (q, frame)
                for link in links.values():
                    if link is not socket:
                        await link.send_frame(push, WSMsgType.TEXT)
            case Ack():
                pass
    return socket


def accepted(message: Send | Post) -> bytes:
    """An `accepted` frame of the usual size; nobody signed it."""
    whom = message.to if isinstance(message, Send) else message.chan
    row = f'{{\\"h\\":\\"{_NO_HASH}\\",\\"id\\":\\"{message.id}\\",\\"n\\":1,\\"to\\":\\"{whom}\\"}}'
    body = f'{{\\"at\\":1800000000000,\\"mesh\\":\\"{message.mesh}\\",\\"r\\":[{row}],\\"v\\":1}}'
    return f'{{"t":"accepted","st":{{"b":"{body}","k":"{_NO_HASH}","s":"{_SIGNATURE}"}}}}'.encode()


async def main() -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app["links"] = {}
    app.router.add_get("/ws", serve_link)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
