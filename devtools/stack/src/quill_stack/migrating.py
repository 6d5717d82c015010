"""``python -m quill_stack.migrating``: every service's migrations in one process, on databases of their own.

The same as ``python -m quill_<service> migrate`` for each; one process, because starting five costs more than all their
migrations. Reads ``QUILL_DATABASES`` (import name of the service to URL, JSON).
"""

import asyncio
import json
import os
from collections.abc import Mapping

from quill_runtime.migrations import migrate, runtime_history, service_history


async def migrate_all(databases: Mapping[str, str]) -> None:
    """Bring each database to the schema of its service, one after the other.

    Raises:
        sqlalchemy.exc.DBAPIError: A migration failed; nothing of its history was changed.
    """
    for package, url in databases.items():
        await migrate(url, (runtime_history(), service_history(package)))


if __name__ == "__main__":
    asyncio.run(migrate_all(json.loads(os.environ["QUILL_DATABASES"])))
