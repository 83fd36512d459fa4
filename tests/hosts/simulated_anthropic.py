"""A simulated Messages API, streaming and not, as Claude Code speaks it."""

import contextlib
import json
import uuid
from typing import Any

from tests.hosts.simulated_models import Block, Body, Call, Fail, ModelHandler, Script, SimulatedModels

KEY_PREFIX = "sk-ant-simulated-"


def simulated_anthropic(**scripts: Script) -> SimulatedModels:
    """A running API; the key `KEY_PREFIX + NAME` picks the script NAME."""
    return SimulatedModels(_Handler, scripts)


def last_tool_result(body: Body) -> str:
    """What the last tool returned to the model."""
    for message in reversed(body["messages"]):
        for block in message["content"] if isinstance(message["content"], list) else []:
            if block.get("type") == "tool_result":
                found = block["content"]
                return found if isinstance(found, str) else "".join(one.get("text", "") for one in found)
    return ""


class _Handler(ModelHandler):
    def do_POST(self) -> None:
        body, path = self.read_body(), self.path.split("?")[0]
        if path == "/v1/messages/count_tokens":
            return self.send_json(200, {"input_tokens": 1_000})
        if path != "/v1/messages":
            return self.do_GET()
        key = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
        # Requests on the side (a title, a summary) have no tools, and are no part of the conversation.
        blocks = self.models.answer(key.removeprefix(KEY_PREFIX), body) if body.get("tools") else None
        if isinstance(blocks, Fail):
            return self.refuse(blocks.status)
        content = [_block(one) for one in blocks] if blocks is not None else [{"type": "text", "text": "ok"}]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # killed while the model spoke
            self._send(body, content)
        return None

    def _send(self, body: Body, content: list[dict[str, Any]]) -> None:
        stop = "tool_use" if any(one["type"] == "tool_use" for one in content) else "end_turn"
        usage = {"input_tokens": 10, "output_tokens": 5}
        message = {"id": _id("msg"), "type": "message", "role": "assistant", "model": body.get("model", "")}
        message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        if not body.get("stream"):
            return self.send_json(200, {**message, "content": content, "stop_reason": stop})
        self.begin_stream()
        self._event("message_start", message=message)
        for index, one in enumerate(content):
            self._event("content_block_start", index=index, content_block=one | _EMPTY[one["type"]])
            self._event("content_block_delta", index=index, delta=_delta(one))
            self._event("content_block_stop", index=index)
        self._event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage=usage)
        self._event("message_stop")
        return None

    def _event(self, kind: str, **content: Any) -> None:
        self.send_event({"type": kind, **content}, kind)


_EMPTY: dict[str, dict[str, Any]] = {"text": {"text": ""}, "tool_use": {"input": {}}}


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Call):
        return {"type": "tool_use", "id": _id("toolu"), "name": block.tool, "input": block.input}
    return {"type": "text", "text": block.text}


def _delta(content: dict[str, Any]) -> dict[str, Any]:
    if content["type"] == "text":
        return {"type": "text_delta", "text": content["text"]}
    return {"type": "input_json_delta", "partial_json": json.dumps(content["input"])}


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:20]}"
