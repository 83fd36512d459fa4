"""What the body of a message means to this peer's channels: names, epochs, history, or simply a text."""

from claudemesh.errors import EnvelopeRefused
from claudemesh.peer import channel_contents, contents
from claudemesh.peer.batch import Content, Effect, read_content
from claudemesh.peer.directory import Directory
from claudemesh.peer.receiving import Authentic
from claudemesh.peer.repairing import Repairs
from claudemesh.peer.shared_history import SharedHistory
from claudemesh.protocol.roster import EVERYONE, SPACE


class ChannelReader:
    """Reads the bodies of authentic messages; what they change is carried out when they are recorded."""

    def __init__(self, directory: Directory, repairs: Repairs, shared: SharedHistory) -> None:
        self._directory = directory
        self._repairs = repairs
        self._shared = shared

    def read(self, message: Authentic) -> Content:
        """Read a body by its content type, in the place where that type belongs.

        Raises:
            Malformed: The body is not what the type says.
            EpochRefused, Unopenable: It hands on a secret against the rules.
            EnvelopeRefused: `unsupported_content`, `not_in_channel`.
        """
        if message.channel is not None:
            return self._read_post(message)
        body = message.opened.body
        match message.header["ct"]:
            case channel_contents.DIRECTORY:
                return self._directory.take(channel_contents.read_directory(body), message.sender)
            case channel_contents.SLOT:
                return self._repairs.take(channel_contents.read_body(body), message.sender)
            case channel_contents.HISTORY | channel_contents.PAST as content_type:
                return self._shared.read(content_type, body, message.sender)
            case contents.NACK:
                return self._read_nack(message)
            case _:
                return read_content(message)

    def _read_post(self, message: Authentic) -> Content:
        """In the space there are names, in every other channel texts."""
        is_directory = message.header["ct"] == channel_contents.DIRECTORY
        if is_directory and message.channel == SPACE:
            return self._directory.take(channel_contents.read_directory(message.opened.body), message.sender)
        if message.header["ct"] != contents.TEXT or message.channel in (SPACE, EVERYONE):
            raise EnvelopeRefused("unsupported_content")
        return read_content(message)

    def _read_nack(self, message: Authentic) -> Content:
        nack = contents.read_nack(message.opened.body)
        if nack.epoch is None:
            return nack
        answer: Effect = self._repairs.answer(message.sender, nack.epoch)
        return answer
