"""Control events and lane states: how operators steer lanes, and what lanes say of themselves.

Both live on compacted topics, one record per key, and the newest counts. A target is a provider (`claude`: all of its
lanes) or one of its model groups (`claude:opus`); a lane is a shard of one of those (`claude/0`, `claude:opus/1`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import Event, Moment
from schemas.request import Part

Target = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}(:[a-z][a-z0-9_-]{0,63})?$")]

LIMITS_KEY = "limits/"
MODE_KEY = "mode/"


class Mode(StrEnum):
    """What the operator wants of a lane."""

    OPEN = "open"
    #: Nothing is called; what waits, waits. What comes goes to its next provider, if it has one.
    PAUSED = "paused"
    #: Nothing is called; what waits goes to its next provider as well, if it has one.
    DRAINING = "draining"


class LimitChange(Event):
    """New limits of a target, for all its lanes together. None: as in the settings. Key: `limits/<target>`."""

    ce_type: ClassVar[str] = "ai.control.limits"

    schema_version: Literal[1] = 1
    kind: Literal["limits"] = "limits"
    target: Target
    rpm: int | None = Field(default=None, ge=1)
    rph: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    tph: int | None = Field(default=None, ge=1)

    @property
    def key(self) -> str:
        return LIMITS_KEY + self.target


class ModeChange(Event):
    """Opens, pauses or drains a target's lanes. Key: `mode/<target>`."""

    ce_type: ClassVar[str] = "ai.control.mode"

    schema_version: Literal[1] = 1
    kind: Literal["mode"] = "mode"
    target: Target
    mode: Mode
    at: Moment | None = Field(
        default=None,
        description="when it was set; one that opens forgets what providers have said of their limits before",
    )

    @property
    def key(self) -> str:
        return MODE_KEY + self.target


ControlEvent = Annotated[LimitChange | ModeChange, Field(discriminator="kind")]


class LimitState(Part):
    """One limit of a lane: what its window holds, and what it may hold (None: unlimited)."""

    used: int
    limit: int | None = None


class LaneState(Event):
    """A lane as its worker sees it, said when it changes and at least every few seconds. Key: the lane's name."""

    ce_type: ClassVar[str] = "ai.lane"

    schema_version: Literal[1] = 1
    lane: str
    provider: str
    mode: Mode = Mode.OPEN
    circuit: Literal["closed", "open", "half_open"] = "closed"
    waiting: int = Field(default=0, ge=0)
    in_flight: int = Field(default=0, ge=0)
    #: Seconds that a request of normal priority would wait for its call; None: nobody knows (paused, draining).
    wait: float | None = None
    #: Until when the provider asked to be left alone.
    paused_until: Moment | None = None
    #: When the circuit lets a probe through.
    reopens_at: Moment | None = None
    rpm: LimitState
    rph: LimitState
    tpm: LimitState
    tph: LimitState
    at: Moment
