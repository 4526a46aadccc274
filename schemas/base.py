"""What all events have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

#: Names that go into Kafka keys, ClickHouse columns and metric labels: printable, without spaces or slashes.
WorkspaceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
RequestId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]

DEFAULT_WORKSPACE = "default"


#: A month as budgets count it: YYYY-MM.
Month = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        # The first and the last hours of the calendar have no UTC in some zones.
        raise ValueError("the moment is outside of the calendar in UTC") from None


#: An aware moment, kept in UTC.
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Event(BaseModel):
    """A record on a topic. An unknown field is ignored, so that a newer producer never stops an older reader."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_timedelta="float")

    #: The CloudEvents type of the record.
    ce_type: ClassVar[str]

    schema_version: int = Field(default=1, ge=1)


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 for the most urgent."""
        return tuple(Priority).index(self)
