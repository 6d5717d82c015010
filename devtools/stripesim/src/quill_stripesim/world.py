"""Everything the simulated Stripe knows, apart from HTTP.

Objects are kept as Stripe shows them, as plain JSON, plus fields that begin with an underscore and never leave the
simulator. They are never changed in place: a change puts a new mapping, so a refused request can be undone exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quill_stripesim.journal import Journal
from quill_stripesim.stripe_error import no_such

Resource = dict[str, Any]
"""One Stripe object as JSON."""

INDEXES: Mapping[str, tuple[str, ...]] = {
    "_delivery": ("invoice",),
    "billing.meter": ("event_name",),
    "billing.meter_event": ("_customer", "identifier"),
    "invoice": ("customer", "status", "_subscription"),
    "invoice_payment": ("invoice",),
    "invoiceitem": ("customer", "invoice"),
    "line_item": ("invoice",),
    "payment_method": ("customer",),
    "price": ("product", "lookup_key"),
    "subscription": ("customer", "status"),
    "subscription_item": ("subscription",),
    "customer": ("test_clock",),
}
"""Fields by which `where` finds objects without reading all of them."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The request that an event came from; events made by the passing of time have none."""

    request_id: str
    idempotency_key: str | None


class World:
    """The simulator's whole state: objects by kind, indexes over them, and the numbers used for ids.

    Ids are counted, so the same requests in the same order give the same ids. Reads see the current request's changes;
    `commit` makes them durable, `rollback` takes all of them back.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._tables: dict[str, dict[str, Resource]] = {}
        self._indexes: dict[tuple[str, str, Any], dict[str, None]] = {}
        self._counters: dict[str, int] = {}
        self._undo: list[tuple[str, str, Resource | None]] = []
        self._counters_before: dict[str, int] = {}
        self._journal = journal
        self.cause: Cause | None = None
        if journal is not None:
            for entry in journal.entries():
                self._replay(entry)
            journal.restart(self._whole())

    # -- reading

    def get(self, kind: str, identifier: str) -> Resource | None:
        """Returns one object, or nothing."""
        return self._tables.get(kind, {}).get(identifier)

    def require(self, kind: str, identifier: str, *, param: str | None = None) -> Resource:
        """Returns one object.

        Raises:
            StripeError: 404 `resource_missing`, or 400 when the id came in `param`.
        """
        found = self.get(kind, identifier)
        if found is None:
            raise no_such(kind.rpartition(".")[2], identifier, param=param)
        return found

    def find(self, identifier: str) -> Resource | None:
        """Returns the object of Stripe's with this id, of whatever kind."""
        shown = (table for kind, table in self._tables.items() if not kind.startswith("_"))
        return next((table[identifier] for table in shown if identifier in table), None)

    def all(self, kind: str) -> list[Resource]:
        """Returns every object of a kind, oldest first."""
        return list(self._tables.get(kind, {}).values())

    def where(self, kind: str, field: str, value: Any) -> list[Resource]:
        """Returns the objects whose indexed field has this value, oldest first."""
        if field not in INDEXES[kind]:
            raise KeyError(f"{kind}.{field} is not indexed")
        table = self._tables.get(kind, {})
        found = [table[identifier] for identifier in self._indexes.get((kind, field, value), ())]
        return sorted(found, key=lambda resource: int(resource["_seq"]))

    # -- changing

    def new_id(self, prefix: str) -> str:
        """Counts out the next id, such as `cus_00000000000012`."""
        self._counters_before.setdefault(prefix, self._counters.get(prefix, 0))
        self._counters[prefix] = self._counters.get(prefix, 0) + 1
        return f"{prefix}_{self._counters[prefix]:014d}"

    def put(self, resource: Resource) -> Resource:
        """Stores an object under its `object` and `id`, new or changed, and returns it as stored."""
        kind, identifier = resource["object"], resource["id"]
        previous = self.get(kind, identifier)
        if previous is None and "_seq" not in resource:
            resource = {**resource, "_seq": self._next_sequence()}
        elif previous is not None:
            resource = {**resource, "_seq": previous["_seq"]}
        self._undo.append((kind, identifier, previous))
        self._set(kind, identifier, resource)
        return resource

    def remove(self, kind: str, identifier: str) -> None:
        """Forgets an object."""
        self._undo.append((kind, identifier, self.get(kind, identifier)))
        self._set(kind, identifier, None)

    def commit(self) -> None:
        """Keeps what was changed since the last commit; durable before it returns when there is a journal."""
        if self._journal is not None and self._undo:
            touched = dict.fromkeys((kind, identifier) for kind, identifier, _ in self._undo)
            current = {key: self.get(*key) for key in touched}
            self._journal.append(
                {
                    "put": [resource for resource in current.values() if resource is not None],
                    "remove": [list(key) for key, resource in current.items() if resource is None],
                    "counters": {prefix: self._counters[prefix] for prefix in self._counters_before},
                }
            )
        self._undo.clear()
        self._counters_before.clear()

    def rollback(self) -> None:
        """Takes back what was changed since the last commit."""
        for kind, identifier, previous in reversed(self._undo):
            self._set(kind, identifier, previous)
        self._counters.update(self._counters_before)
        self._undo.clear()
        self._counters_before.clear()

    def close(self) -> None:
        """Lets go of the journal."""
        if self._journal is not None:
            self._journal.close()

    # -- inside

    def _next_sequence(self) -> int:
        self.new_id("_seq")
        return self._counters["_seq"]

    def _set(self, kind: str, identifier: str, resource: Resource | None) -> None:
        table = self._tables.setdefault(kind, {})
        previous = table.get(identifier)
        for field in INDEXES.get(kind, ()):
            if previous is not None:
                self._indexes[kind, field, previous.get(field)].pop(identifier)
            if resource is not None:
                self._indexes.setdefault((kind, field, resource.get(field)), {})[identifier] = None
        if resource is None:
            table.pop(identifier, None)
        else:
            table[identifier] = resource

    def _replay(self, entry: Mapping[str, Any]) -> None:
        for resource in entry["put"]:
            self._set(resource["object"], resource["id"], resource)
        for kind, identifier in entry["remove"]:
            self._set(kind, identifier, None)
        self._counters.update(entry["counters"])

    def _whole(self) -> dict[str, Any]:
        every = [resource for table in self._tables.values() for resource in table.values()]
        return {"put": every, "remove": [], "counters": self._counters}
