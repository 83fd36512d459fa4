"""An interactive session of a host in a private tmux server: its own socket, no configuration of anybody's."""

import subprocess
import time
from pathlib import Path

from tests.processes import wait_until

COLUMNS, ROWS = 160, 45
_ANSWERED_WITHIN_S = 3
"""After that, a command that was typed is sent once more."""


class Terminal:
    """One program on a screen that a test can read and type into."""

    def __init__(self, directory: Path, cwd: Path, environment: dict[str, str], command: list[str]) -> None:
        self._socket = directory / "tmux.sock"
        self._environment = environment
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "host", *size, "-c", str(cwd), *command)

    @property
    def screen(self) -> str:
        """What is on the screen now."""
        return self._tmux("capture-pane", "-p", "-t", "host")

    def type(self, line: str) -> None:
        """Type a line, and press Enter once the program has taken it in."""
        self._tmux("send-keys", "-t", "host", "-l", line)
        wait_until(lambda: line[-20:] in self.screen, f"{line!r} on the screen: {self.screen}")
        time.sleep(0.3)  # a paste that ends with Enter would be taken for text of several lines
        self.press("Enter")

    def command(self, line: str, done: str, within_s: float) -> None:
        """Give a command until what it says at its end is on the screen.

        The first Enter may choose it from a list, or be taken for a part of a paste; on an empty line it does nothing.
        """
        self.type(line)
        deadline = time.monotonic() + within_s
        while not self._comes(done, _ANSWERED_WITHIN_S):
            assert time.monotonic() < deadline, f"{done!r} never came to the screen:\n{self.screen}"
            self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names."""
        self._tmux("send-keys", "-t", "host", *keys)

    def wait_for(self, text: str, within_s: float = 30) -> None:
        """Wait until a text is on the screen."""
        assert self._comes(text, within_s), f"{text!r} never came to the screen:\n{self.screen}"

    def _comes(self, text: str, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while text not in self.screen:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return True

    def process(self) -> int:
        """The program's process."""
        return int(self._tmux("display-message", "-p", "-t", "host", "#{pane_pid}"))

    def close(self) -> None:
        """End the program and our tmux server."""
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self._socket), *words]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False).stdout
