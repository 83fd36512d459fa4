"""The one place where bytes of a link become messages, or are refused (docs/spec/wire.md §2)."""

from typing import TypeVar

import msgspec

from claudemesh.errors import Malformed
from claudemesh.protocol import limits
from claudemesh.protocol.messages import BrokerMessage, Message, PeerMessage, Post, PublishedEpoch, Send

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_peer_decoder = msgspec.json.Decoder(PeerMessage)
_broker_decoder = msgspec.json.Decoder(BrokerMessage)
_send_decoder = msgspec.json.Decoder(Send)
_envelope_decoder = msgspec.json.Decoder(Send | Post)
_epoch_decoder = msgspec.json.Decoder(PublishedEpoch)


def encode_message(message: Message) -> bytes:
    """One frame, as UTF-8 JSON."""
    return _encoder.encode(message)


def decode_peer_message(frame: bytes | str, max_bytes: int = limits.MAX_FRAME_BYTES) -> PeerMessage:
    """Read a frame that a peer sent to a broker, or raise `Malformed`."""
    message: PeerMessage = _decode(_peer_decoder, frame, max_bytes)
    return message


def decode_broker_message(frame: bytes | str, max_bytes: int = 4 * limits.MAX_FRAME_BYTES) -> BrokerMessage:
    """Read a frame that a broker sent to a peer, or raise `Malformed`."""
    message: BrokerMessage = _decode(_broker_decoder, frame, max_bytes)
    return message


def decode_send(frame: bytes | str) -> Send:
    """Read the `send` frame inside a delivery, or raise `Malformed`."""
    return _decode(_send_decoder, frame, limits.MAX_FRAME_BYTES)


def decode_envelope(frame: bytes | str) -> Send | Post:
    """Read the `send` or `post` frame inside a delivery, or raise `Malformed`."""
    envelope: Send | Post = _decode(_envelope_decoder, frame, limits.MAX_FRAME_BYTES)
    return envelope


def decode_epoch(published: bytes | str) -> PublishedEpoch:
    """Read the epoch inside a delivery, or raise `Malformed`."""
    return _decode(_epoch_decoder, published, limits.MAX_FRAME_BYTES)


def _decode(decoder: msgspec.json.Decoder[T], frame: bytes | str, max_bytes: int) -> T:
    if len(frame) > max_bytes:
        raise Malformed("too_large", f"{len(frame)} bytes")
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        code = "unknown_type" if str(error).endswith("`$.t`") else "bad_frame"
        raise Malformed(code, str(error)[:120]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("bad_frame", "not JSON") from error
