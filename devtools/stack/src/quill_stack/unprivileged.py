"""How a server that refuses to run as root is run by root, without making a user or opening any folder.

A user namespace in which we are uid 65534 is enough: the server sees an ordinary user, the kernel still sees the owner
of the files. Where namespaces are refused (many containers), ``setpriv`` really becomes uid 65534, and then the files
must belong to it.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from quill_stack.errors import StackError

NOBODY: Final = 65_534
PROBE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Disguise:
    """What to put before a command, and whether its files must belong to ``NOBODY``."""

    prefix: tuple[str, ...]
    owns_files: bool

    def apply(self, argv: Sequence[str]) -> list[str]:
        """The command as it must be started."""
        return [*self.prefix, *argv]


ORDINARY = Disguise(prefix=(), owns_files=False)


AS_NOBODY: Final = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
IN_NAMESPACE: Final = ("unshare", "-U", f"--map-user={NOBODY}", f"--map-group={NOBODY}")


def _succeeds(*argv: str) -> bool:
    if shutil.which(argv[0]) is None:
        return False
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS, check=False)
    return done.returncode == 0


@cache
def disguise(*, namespaces: bool = True) -> Disguise:
    """What this process needs in order to run Postgres.

    Args:
        namespaces: ``False`` leaves out user namespaces, to try the other way.

    Raises:
        StackError: We are root and neither way works.
    """
    if os.geteuid() != 0:
        return ORDINARY
    if namespaces and _succeeds(*IN_NAMESPACE, "true"):
        return Disguise(prefix=IN_NAMESPACE, owns_files=False)
    if _succeeds(*AS_NOBODY, "true"):
        return Disguise(prefix=AS_NOBODY, owns_files=True)
    raise StackError(
        "Postgres does not run as root, and neither unshare nor setpriv can make it an ordinary user here",
        advice="run as an ordinary user, or set DATABASE_URL to a running Postgres",
    )


def hand_over(folder: Path) -> None:
    """Give ``folder`` and everything in it to ``NOBODY``.

    Raises:
        StackError: ``NOBODY`` could not reach it, because a folder above is closed.
    """
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if not _succeeds(*AS_NOBODY, "test", "-r", str(folder)):
        raise StackError(
            f"uid {NOBODY} cannot enter {folder}: a folder above is closed to others, and user namespaces are refused",
            advice="set STACK_DIR to a folder that everybody may enter, for example below /var/tmp",
        )
