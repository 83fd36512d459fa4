"""A simulated Gemini API: generateContent and streamGenerateContent, as Gemini CLI speaks them."""

import contextlib
import json
from typing import Any

from tests.hosts.simulated_models import Block, Body, Call, Fail, ModelHandler, Script, SimulatedModels

MODEL = "gemini"
ON_THE_SIDE = '{"reasoning": "x", "next_speaker": "user", "model_choice": "flash"}'


def simulated_gemini(script: Script) -> SimulatedModels:
    """A running API with one model."""
    return SimulatedModels(_Handler, {MODEL: script})


def last_function_response(body: Body) -> str:
    """What the last tool returned to the model."""
    parts = [part for content in body["contents"] for part in content["parts"] if "functionResponse" in part]
    return str(parts[-1]["functionResponse"]["response"].get("output", ""))


class _Handler(ModelHandler):
    def do_POST(self) -> None:
        body = self.read_body()
        if "countTokens" in self.path:
            return self.send_json(200, {"totalTokens": 10})
        has_tools = any("functionDeclarations" in one for one in body.get("tools", []))
        blocks = self.models.answer(MODEL, body) if has_tools else None
        if isinstance(blocks, Fail):
            return self.refuse(blocks.status)
        parts = [_part(one) for one in blocks] if blocks is not None else [{"text": ON_THE_SIDE}]
        answer = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
        asked = len(json.dumps(body)) // 4
        usage = {"promptTokenCount": asked, "candidatesTokenCount": 5, "totalTokenCount": asked + 5}
        response = {"candidates": [answer], "usageMetadata": usage, "modelVersion": "simulated", "responseId": "r"}
        if "streamGenerateContent" not in self.path:
            return self.send_json(200, response)
        self.begin_stream()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # interrupted while the model thought
            self.send_event(response)
        return None


def _part(block: Block) -> dict[str, Any]:
    if isinstance(block, Call):
        return {"functionCall": {"name": block.tool, "args": block.input}}
    return {"text": block.text}
