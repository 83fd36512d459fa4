"""Puts a token on every request: for a client that can send none, such as the conformance suite.

It stands in for what an operator would put there; every other header, `Host` and `Origin` among them, passes as it
came.
"""

import sys
from contextlib import suppress
from typing import Final

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, web

_OF_ONE_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"})


def run(port: int, upstream: str, token: str) -> None:
    """Listen on loopback until it is killed."""

    async def session_of(app: web.Application) -> None:
        app["session"] = ClientSession(timeout=ClientTimeout(total=None), auto_decompress=False)

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = request.headers.copy()
        headers["Authorization"] = f"Bearer {token}"
        body = await request.read()
        address = f"{upstream}{request.path_qs}"
        async with request.app["session"].request(request.method, address, headers=headers, data=body) as found:
            answer = web.StreamResponse(status=found.status)
            answer.headers.extend(one for one in found.headers.items() if one[0].lower() not in _OF_ONE_HOP)
            await answer.prepare(request)
            with suppress(ClientConnectionError, ConnectionResetError):
                async for chunk in found.content.iter_any():
                    await answer.write(chunk)
                await answer.write_eof()
            return answer

    app = web.Application(client_max_size=1 << 26)
    app.on_startup.append(session_of)
    app.router.add_route("*", "/{tail:.*}", forward)
    web.run_app(app, host="127.0.0.1", port=port, handler_cancellation=True, print=None)


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], sys.stdin.read().strip())
