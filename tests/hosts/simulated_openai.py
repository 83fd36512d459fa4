"""A simulated Responses API, as Codex speaks it, and Chat Completions API, as opencode does."""

import contextlib
import json
import time
import uuid
from typing import Any

from tests.hosts.simulated_models import Block, Body, Call, Fail, ModelHandler, Script, SimulatedModels

KEY_PREFIX = "sk-simulated-"


def simulated_openai(**scripts: Script) -> SimulatedModels:
    """A running API; the key `KEY_PREFIX + NAME` picks the script NAME."""
    return SimulatedModels(_Handler, scripts)


def last_tool_output(body: Body) -> str:
    """What the last tool returned to the model, in either protocol."""
    if "messages" in body:
        return "".join(_texts([one for one in body["messages"] if one["role"] == "tool"][-1]["content"]))
    return "".join(_texts([one for one in body["input"] if str(one.get("type")).endswith("_output")][-1]["output"]))


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [one.get("text", "") for one in content]


class _Handler(ModelHandler):
    def do_GET(self) -> None:
        if self.headers.get("upgrade"):
            return self.send_json(426, {"error": {"message": "no websocket here"}})
        if "/models" in self.path:
            return self.send_json(
                200, {"object": "list", "data": [{"id": "simulated", "object": "model"}], "models": []}
            )
        return super().do_GET()

    def do_POST(self) -> None:
        path = self.path.split("?")[0]
        is_responses = path.endswith("/responses")
        body = self.read_body()
        if not is_responses and not path.endswith("/chat/completions"):
            return self.do_GET()
        model = self.headers.get("authorization", "").removeprefix("Bearer ").removeprefix(KEY_PREFIX)
        blocks = self.models.answer(model, body) if body.get("tools") else None
        if isinstance(blocks, Fail):
            return self.refuse(blocks.status)
        self.begin_stream()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # killed while the model spoke
            (self._respond if is_responses else self._chat)(body, blocks)
        return None

    def _respond(self, body: Body, blocks: list[Block] | None) -> None:
        response: dict[str, Any] = {"id": _id("resp"), "object": "response", "status": "in_progress", "output": []}
        self._event("response.created", response=response)
        items = [_item(one) for one in blocks] if blocks is not None else [_message("ok")]
        for index, item in enumerate(items):
            self._event("response.output_item.added", output_index=index, item=item | {"status": "in_progress"})
            if item["type"] == "message":
                text = item["content"][0]["text"]
                place = {"output_index": index, "content_index": 0, "item_id": item["id"]}
                self._event("response.output_text.delta", **place, delta=text)
            self._event("response.output_item.done", output_index=index, item=item)
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}  # type: ignore[dict-item]
        done = response | {"status": "completed", "output": items, "usage": usage}
        self._event("response.completed", response=done)

    def _chat(self, body: Body, blocks: list[Block] | None) -> None:
        base = {"id": _id("chatcmpl"), "object": "chat.completion.chunk", "created": int(time.time())}
        base["model"] = body.get("model", "")
        self._chunk(base, {"role": "assistant", "content": ""})
        calls = [one for one in blocks or () if isinstance(one, Call)]
        for index, call in enumerate(calls):
            function = {"name": call.tool, "arguments": json.dumps(call.input)}
            tool_call = {"index": index, "id": _id("call"), "type": "function", "function": function}
            self._chunk(base, {"tool_calls": [tool_call]})
        texts = ["ok"] if blocks is None else [one.text for one in blocks if not isinstance(one, Call)]
        for text in texts:
            self._chunk(base, {"content": text})
        self._chunk(base, {}, "tool_calls" if calls else "stop")
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        self.send_event(base | {"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.wfile.flush()

    def _chunk(self, base: Body, delta: dict[str, Any], finish: str | None = None) -> None:
        self.send_event(base | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _event(self, kind: str, **content: Any) -> None:
        self.send_event({"type": kind, **content}, kind)


def _item(block: Block) -> dict[str, Any]:
    if not isinstance(block, Call):
        return _message(block.text)
    item = {"type": "function_call", "id": _id("fc"), "call_id": _id("call"), "name": block.tool}
    item |= {"arguments": json.dumps(block.input), "status": "completed"}
    return item | ({"namespace": block.namespace} if block.namespace else {})


def _message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": content}


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:12]}"
