"""What all messages have in common."""

from typing import Self

from pydantic import BaseModel, ConfigDict


class WireModel(BaseModel):
    """A value on the wire: immutable, tolerant of fields a newer producer added."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Message(WireModel):
    """The value of one Kafka record, encoded as compact JSON."""

    def to_bytes(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        """Decode a record's value.

        Raises:
            pydantic.ValidationError: naming each field that is wrong.
        """
        return cls.model_validate_json(value)
