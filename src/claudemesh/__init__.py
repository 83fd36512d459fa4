"""claudemesh: a wire between coding agents. docs/protocol.md."""

from typing import Final

__version__: Final = "0.1.0"
