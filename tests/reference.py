"""The parts of the reference that are made from the code: `python -m tests.reference` writes them.

A test compares what stands in docs/ with what these functions return, so that neither can drift.
"""

import ast
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from claudemesh.cli.main import cli
from claudemesh.daemon.schema import CONTRACTS, base

DOCS = Path(__file__).resolve().parents[1] / "docs"
CLI = DOCS / "cli.md"
IPC = DOCS / "spec" / "ipc.md"
GENERATED = re.compile(r"(<!-- from the code: .*? -->\n).*?(<!-- end -->)", re.S)
WIDTH = 100


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and everything below it, by the words that run it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from commands(below, f"{path} {name}")


def help_text(path: str, command: click.Command) -> str:
    """What `--help` prints, without trailing spaces."""
    context = click.Context(
        command,
        info_name=path,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).split("\n"))


def cli_reference() -> str:
    """Every command with its help."""
    sections = [
        f"### `{path}`\n\n```text\n{help_text(path, command)}\n```\n"
        for path, command in commands(cli, "claudemesh")
        if path != "claudemesh"
    ]
    return "\n" + "\n".join(sections) + "\n"


def ipc_reference() -> str:
    """Every operation, then every object that answers hold."""
    parts = [_operation(name) for name in CONTRACTS]
    held = {
        kind
        for one in CONTRACTS.values()
        for kind in (_held_by(one.answer) - {one.answer}) | (_held_by(one.event) if one.event else set())
    }
    parts += [_object(kind) for kind in sorted(held, key=lambda kind: kind.__name__)]
    return "\n" + "\n".join(parts) + "\n"


def with_generated(document: str, generated: str) -> str:
    """A document with its generated part replaced."""
    assert GENERATED.search(document), "the document has no place for what is made from the code"
    return GENERATED.sub(lambda match: match[1] + generated + match[2], document)


def _operation(name: str) -> str:
    contract = CONTRACTS[name]
    lines = [f"### `{name}`", "", _sentence(contract.args)]
    if contract.follows:
        lines[-1] += " It lasts until the other end hangs up."
    lines += ["", *_table("argument", contract.args)]
    if contract.event is not None:
        lines += ["", f"Events: [`{contract.event.__name__}`](#{contract.event.__name__.lower()}) objects."]
    lines += ["", f"Answer: {_sentence(contract.answer)}", "", *_table("field", contract.answer)]
    return "\n".join(lines) + "\n"


def _object(kind: type) -> str:
    return "\n".join([f"### {kind.__name__}", "", _sentence(kind), "", *_table("field", kind)]) + "\n"


def _table(heading: str, kind: type) -> list[str]:
    fields = msgspec.structs.fields(kind)
    if not fields:
        return [f"No {heading}s."]
    said = _field_docs(kind)
    rows = [f"| `{one.encode_name}` | {type_name(one.type)} | {said.get(one.name, '')} |" for one in fields]
    return [f"| {heading} | type | |", "|---|---|---|", *rows]


def type_name(kind: object) -> str:
    """A type in the words of JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return "text"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(one) for one in arguments))
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "object"
    if isinstance(kind, typing.ForwardRef):
        return f"[{kind.__forward_arg__}](#{kind.__forward_arg__.lower()})"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    names = {str: "text", int: "integer", bool: "boolean", type(None): "null"}
    return names[kind]  # type: ignore[index]


def _held_by(kind: type) -> set[type]:
    found = {kind}
    for one in msgspec.structs.fields(kind):
        for below in _structs_in(one.type):
            if below is not kind:
                found |= _held_by(below)
    return found


def _structs_in(kind: object) -> set[type]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {kind}
    return {one for argument in typing.get_args(kind) for one in _structs_in(argument)}


def _sentence(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


def _field_docs(kind: type) -> dict[str, str]:
    """The text that stands under each field, inherited ones too."""
    said: dict[str, str] = {}
    for owner in reversed([one for one in kind.__mro__ if issubclass(one, (base.Args, base.Answer))]):
        tree = ast.parse(inspect.getsource(owner)).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                said[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[union-attr]
    return said


if __name__ == "__main__":
    for file, generated in ((CLI, cli_reference()), (IPC, ipc_reference())):
        file.write_text(with_generated(file.read_text(), generated))
        sys.stdout.write(f"wrote {file.relative_to(DOCS.parent)}\n")
