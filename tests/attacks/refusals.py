"""How the real broker says no."""

from collections.abc import Callable

from claudemesh.protocol import messages
from claudemesh.protocol.handshake import ChallengeBody
from claudemesh.protocol.messages import Hello
from tests.attacks.wire_member import WireLink, dialled
from tests.attacks.wire_mesh import WireMesh


def word(refusal: str) -> str:
    """The code of a refusal: the one in the detail where the broker says no more than `invalid`."""
    words = refusal.split() or [""]
    return words[1] if words[0] == "invalid" and len(words) > 1 else words[0]


async def hello_refusal(mesh: WireMesh, make: Callable[[ChallengeBody], Hello]) -> str:
    """Answer a challenge with `make(challenge)`; the code of the refusal, with its detail."""
    async with dialled(mesh.url) as link:
        await link.send(make(await link.challenge()))
        return await link.refusal()


async def ends_with(link: WireLink) -> str:
    """The code with which the broker closes the link; "" when it just closes it."""
    code = ""
    while (frame := await link.receive()) is not None:
        if isinstance(frame, messages.Closing):
            code = word(f"{frame.code} {frame.detail}")
    return code
