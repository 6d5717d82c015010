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

from quill_stack.errors import StackError

NOBODY = 65_534
PROBE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Disguise:
    """What to put before a command, and whether its files must belong to ``NOBODY``."""

    prefix: tuple[str, ...]
    owns_files: bool

    def apply(self, argv: Sequence[str]) -> list[str]:
        """The command as it must be started."""
        return [*self.prefix, *argv]


ORDINARY = Disguise(prefix=(), owns_files=False)


def _works(prefix: Sequence[str]) -> bool:
    if shutil.which(prefix[0]) is None:
        return False
    probe = subprocess.run(
        [*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS, check=False
    )
    return probe.returncode == 0


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
    in_namespace = ("unshare", "-U", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
    if namespaces and _works(in_namespace):
        return Disguise(prefix=in_namespace, owns_files=False)
    as_nobody = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    if _works(as_nobody):
        return Disguise(prefix=as_nobody, owns_files=True)
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
    if not _works(("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "ls", str(folder))):
        raise StackError(
            f"uid {NOBODY} cannot enter {folder}: a folder above is closed to others, and user namespaces are refused",
            advice="set STACK_DIR to a folder that everybody may enter, for example below /var/tmp",
        )
