"""docs/spec/ipc.md says what the code does: every operation, argument, answer and field, each explained."""

import msgspec
import pytest

from claudemesh.daemon.schema import CONTRACTS
from tests.reference import IPC, ipc_reference, with_generated


def test_the_reference_of_operations_is_complete() -> None:
    """Each operation and object stands there as the code has it."""
    document = IPC.read_text()

    assert document == with_generated(document, ipc_reference()), "run: python -m tests.reference"


def test_every_field_is_explained() -> None:
    """No row of a table ends without a word."""
    assert [line for line in ipc_reference().split("\n") if line.startswith("| `") and line.endswith("|  |")] == []


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_schema_can_be_decoded(name: str) -> None:
    """A type that the decoder cannot build would fail at the first request only."""
    contract = CONTRACTS[name]

    for kind in (contract.args, contract.answer, contract.event):
        if kind is not None:
            msgspec.json.Decoder(kind)


def test_a_text_field_of_a_request_is_bounded() -> None:
    """Every text from outside has a largest length."""
    unbounded = [
        f"{name}.{field.name}"
        for name, contract in CONTRACTS.items()
        for field in msgspec.structs.fields(contract.args)
        if field.type is str
    ]

    assert unbounded == []
