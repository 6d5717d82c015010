"""Which loopback ports the stack listens on: the familiar one, or a free one when that is taken."""

import socket
from collections.abc import Iterable

HOST = "127.0.0.1"
ATTEMPTS = 50


def is_free(port: int) -> bool:
    """Whether nothing listens on loopback ``port`` at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(*, taken: Iterable[int] = ()) -> int:
    """A port the kernel hands out, other than ``taken``."""
    refused = set(taken)
    for _ in range(ATTEMPTS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in refused:
            return port
    raise OSError(f"the kernel offered no unused loopback port in {ATTEMPTS} attempts")


class PortChooser:
    """Hands out each port once. ``prefer_familiar=False`` always asks the kernel, for stacks that run side by side."""

    def __init__(self, *, prefer_familiar: bool) -> None:
        self._prefer_familiar = prefer_familiar
        self._given: set[int] = set()

    def choose(self, familiar: int) -> int:
        """The ``familiar`` port when it is free, else any free one."""
        fits = self._prefer_familiar and familiar not in self._given and is_free(familiar)
        port = familiar if fits else free_port(taken=self._given)
        self._given.add(port)
        return port
