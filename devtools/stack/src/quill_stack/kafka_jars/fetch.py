"""``python -m quill_stack.kafka_jars.fetch REPOSITORY TARGET GROUP:ARTIFACT:VERSION...``: jgo's pure-Python download.

A process of its own, because jgo warns at import and reads the network, which test sessions forbid in theirs.
"""

import shutil
import sys
from pathlib import Path

from jgo.maven import MavenContext

TIMEOUT_SECONDS = 30


def main(repository: str, target: str, *coordinates: str) -> None:
    """Put one file per coordinate into ``target``; whatever goes wrong ends the process with a trace."""
    context = MavenContext(repo_cache=Path(repository), timeout=TIMEOUT_SECONDS)
    for coordinate in coordinates:
        group, artifact, version = coordinate.split(":")
        found = context.project(group, artifact).at_version(version).artifact().resolve()
        shutil.copyfile(found, Path(target) / found.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
