"""What the six tools cost a model, and that what they are told fits what they take."""

import json
import subprocess
import sys
from typing import Any

import bpe_openai
import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.mcp.options import Options, attach_arguments, read_options
from claudemesh.mcp.prompts import PROMPTS
from claudemesh.mcp.server import INSTRUCTIONS
from claudemesh.mcp.tool import Tool, ToolError, explain
from claudemesh.mcp.tools import TOOLS, listed

MAX_TOKENS = 1_000
HEAVY = {
    "uvicorn",
    "starlette",
    "asyncio",
    "click",
    "msgspec",
    "mcp",
    "pydantic",
    "anyio",
    "nacl",
    "logging",
    "subprocess",
    "urllib.request",
}


def test_six_tools_cost_a_model_less_than_a_thousand_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    """Every request of every session carries them."""
    encoding = bpe_openai.get_encoding("o200k_base")

    costs = {tool.name: len(encoding.encode(_as_sent(tool))) for tool in TOOLS}

    with capsys.disabled():
        print(f"\ntool_tokens {sum(costs.values())} {costs}")
    assert len(costs) == 6
    assert sum(costs.values()) < MAX_TOKENS
    assert len(encoding.encode(INSTRUCTIONS)) < 400
    assert len(INSTRUCTIONS) < 2_048  # hosts cut longer ones off


@pytest.mark.parametrize("tool", TOOLS, ids=[one.name for one in TOOLS])
def test_a_schema_is_one_that_every_host_takes(tool: Tool) -> None:
    """Plain objects of texts, numbers and choices: no references, no unions, a type everywhere."""
    jsonschema.Draft202012Validator.check_schema(tool.schema)
    for field in tool.schema["properties"].values():
        assert field["type"] in ("string", "integer", "boolean", "array")
        assert not {"$ref", "anyOf", "oneOf", "default", "title"} & field.keys()
    assert list(tool.schema["properties"]) == list(tool.args.__struct_fields__)
    assert "$" not in json.dumps(tool.schema)


@pytest.mark.parametrize("tool", TOOLS, ids=[one.name for one in TOOLS])
@given(arguments=st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=8) | st.integers(), max_size=3))
def test_arguments_are_read_or_refused_in_words(tool: Tool, arguments: dict[str, Any]) -> None:
    """Whatever a model passes ends in arguments or in an error for the model, never in a defect."""
    said, found = "", None
    try:
        found = tool.read(arguments)
    except ToolError as error:
        said = str(error)

    assert isinstance(found, tool.args) != bool(said)
    assert not said or said.startswith(f"{tool.name}: ")
    assert not said or "It takes: " in said
    assert not {"\n", "\r", "\x1b", "\u202e"} & set(said)


@pytest.mark.parametrize("tool", TOOLS, ids=[one.name for one in TOOLS])
def test_what_the_schema_refuses_is_refused(tool: Tool) -> None:
    """The schema and the reading are made of one type, and agree on what is missing or unknown."""
    validator = jsonschema.Draft202012Validator(tool.schema)
    for arguments in ({"nonsense": 1}, *({name: ["x", 1]} for name in tool.args.__struct_fields__)):
        assert list(validator.iter_errors(arguments))
        with pytest.raises(ToolError):
            tool.read(arguments)


def test_the_words_of_a_host_are_read_without_click() -> None:
    """What hosts write into their settings takes the fast way; anything else is for click."""
    words = ["--host", "codex", "--label=api", "--mesh", "team", "--tag", "a=b", "--tag=c=d", "--peers-as-tools"]

    assert read_options(words) == Options("codex", "api", "team", ("a=b", "c=d"), True)
    assert read_options([]) == Options()
    for other in (["--help"], ["--host"], ["--peers-as-tools=yes"], ["word"], ["--unknown", "x"]):
        assert read_options(other) is None


def test_of_the_environment_what_names_a_session_is_passed_on() -> None:
    """A host's own id of the session and its project, what `run` calls it; no other variable, whatever it holds."""
    environment = {
        "CLAUDE_CODE_SESSION_ID": "5e55",
        "CLAUDE_PROJECT_DIR": "/srv/api",
        "CLAUDEMESH_LABEL": "payments",
        "CLAUDEMESH_TAGS": "repo=billing,os=linux",
        "CLAUDEMESH_MESH": "team",
        "ANTHROPIC_API_KEY": "sk-secret",
        "HOME": "/home/alice",
    }

    told = attach_arguments(Options(), environment, "/tmp")
    other = attach_arguments(Options(host="codex"), environment, "/tmp")
    named = attach_arguments(Options(label="api", tags=("a=b",)), environment, "/tmp")

    assert (told["host"], told["key"], told["cwd"]) == ("claude-code", "5e55", "/srv/api")
    assert (told["label"], told["tags"], told["mesh"]) == ("payments", ["repo=billing", "os=linux"], "team")
    assert (named["label"], named["tags"]) == ("api", ["a=b"])
    assert "sk-secret" not in json.dumps(told)
    assert other["key"] not in ("", "5e55")
    assert attach_arguments(Options(), {}, "/tmp")["host"] == "mcp"


def test_a_server_that_is_told_no_session_says_whose_child_it_is() -> None:
    """By that alone a server and the hooks of one Gemini are joined, and two opencode in one directory told apart."""
    assert [attach_arguments(Options(host=one), {}, "/tmp", 7)["process"] for one in ("opencode", "gemini")] == [7, 7]
    assert attach_arguments(Options(host="codex"), {}, "/tmp", 7)["process"] == 0


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("claudemesh.mcp.pump", HEAVY),
        ("claudemesh.daemon.app", {"mcp", "pydantic"}),
        ("claudemesh.mcp.http.app", {"aiohttp", "nacl", "sqlite3", "claudemesh.peer", "claudemesh.daemon.agents"}),
        ("claudemesh.cli.daemon", {"mcp"}),
    ],
)
def test_a_process_imports_no_more_than_it_needs(module: str, heavy: set[str]) -> None:
    """One pump runs for each session, and a daemon without a session pays nothing for MCP."""
    program = f"import {module}, sys; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout

    assert not heavy & set(loaded.split())


def test_every_prompt_names_its_parts() -> None:
    """A prompt whose text needs what it does not ask for would fail in the user's hands."""
    for prompt in PROMPTS.values():
        prompt.text.format(**{one.name: "x" for one in prompt.arguments})


def test_an_error_tells_a_model_what_to_do_and_acts_on_nothing() -> None:
    """Its text may quote a name that a peer chose."""
    from claudemesh.errors import AddressError

    said = explain(AddressError("unknown_address", "bo\x1b[2Jb; did you mean bob?"))

    assert said.startswith("unknown address: bo\\u{1b}[2Jb; did you mean bob? ")
    assert "mesh_peers" in said


def _as_sent(tool: Tool) -> str:
    """As a host gives it to a model: name, description, schema."""
    one = listed(tool)
    return json.dumps({"name": one.name, "description": one.description, "input_schema": one.input_schema})


def test_tools_are_listed_as_they_are_read() -> None:
    """The SDK changes nothing of a schema."""
    for tool in TOOLS:
        sent = msgspec.json.decode(listed(tool).model_dump_json(by_alias=True, exclude_unset=True))
        assert sent["inputSchema"] == tool.schema
        assert "outputSchema" not in sent
