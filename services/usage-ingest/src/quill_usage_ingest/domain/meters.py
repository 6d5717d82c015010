"""Which counter of a report feeds which meter."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MeteredProduct:
    """A product of the catalog at one revision; without a meter when it is not priced by usage."""

    product_key: str
    revision: int
    usage_key: str | None
    counter: str | None


@dataclass(frozen=True, slots=True)
class MeterMap:
    """Meter (usage key) to the counter that feeds it. One counter may feed several meters."""

    counter_by_meter: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, products: Iterable[MeteredProduct]) -> "MeterMap":
        """The map that these products make together."""
        return cls(
            {
                product.usage_key: product.counter
                for product in sorted(products, key=lambda product: product.product_key)
                if product.usage_key is not None and product.counter is not None
            }
        )

    @property
    def counters(self) -> frozenset[str]:
        """Every counter that feeds a meter."""
        return frozenset(self.counter_by_meter.values())
