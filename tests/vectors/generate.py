"""Write the vector files anew: `python -m tests.vectors.generate`.

Everything follows from fixed seeds, so an unchanged protocol gives unchanged files. A changed file
means a changed format, which needs a decision of its own (docs/adr).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vectors import documents, documents_channels, documents_envelope, documents_roster

FOLDER = Path(__file__).parent
FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "canonical": documents.canonical,
    "signatures": documents.signatures,
    "digests": documents.digests,
    "derivation": documents.derivation,
    "padding": documents.padding,
    "envelope": documents_envelope.envelopes,
    "links": documents.links,
    "attestations": documents.attestations,
    "cards": documents.cards,
    "safety_numbers": documents.safety_numbers,
    "replay": documents.replay,
    "backup": documents.backups,
    "roster_log": documents_roster.roster_log,
    "roster_refused": documents_roster.roster_refused,
    "heads": documents_roster.heads,
    "gossip": documents_roster.gossip,
    "epochs": documents_channels.epochs,
    "channel_envelope": documents_channels.channel_envelopes,
    "epoch_history": documents_channels.histories,
    "epoch_repair": documents_channels.repairs,
}


def text_of(family: str) -> str:
    """The content of `FAMILY.json`."""
    return json.dumps(FAMILIES[family](), indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    for family in FAMILIES:
        (FOLDER / f"{family}.json").write_text(text_of(family), encoding="ascii")
        print(f"tests/vectors/{family}.json")


if __name__ == "__main__":
    main()
