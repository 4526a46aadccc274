"""What operators have set for lanes, on top of the settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas.control import LIMITS_KEY, MODE_KEY, ControlEvent, LimitChange, Mode, ModeChange
from streams.dispatch.quota import Limits
from streams.topology import Lane

_EVENT: TypeAdapter[LimitChange | ModeChange] = TypeAdapter(ControlEvent)


@dataclass
class ControlBoard:
    """The newest control event of each key. `limits` are the settings', by quota (`claude`, `claude:opus`)."""

    limits: Mapping[str, Limits]
    _changes: dict[str, LimitChange] = field(default_factory=dict)
    _modes: dict[str, ModeChange] = field(default_factory=dict)

    def apply(self, key: bytes | None, value: bytes | None) -> bool:
        """Take over a record of the control topic. False for one that is none; it changes nothing."""
        name = (key or b"").decode(errors="replace")
        if value is None:
            self._changes.pop(name.removeprefix(LIMITS_KEY), None)
            self._modes.pop(name.removeprefix(MODE_KEY), None)
            return True
        try:
            event = _EVENT.validate_python(orjson.loads(value))
        except (orjson.JSONDecodeError, ValidationError):
            return False
        if name != event.key:
            # Compaction goes by the key: a record under a foreign one would replace what it does not mean.
            return False
        if isinstance(event, LimitChange):
            self._changes[event.target] = event
        else:
            self._modes[event.target] = event
        return True

    def limits_for(self, lane: Lane) -> Limits:
        """The lane's own part of its quota."""
        limits = self.limits.get(lane.quota, Limits())
        change = self._changes.get(lane.quota)
        if change is not None:
            told = {name: getattr(change, name) for name in ("rpm", "rph", "tpm", "tph")}
            # The command refuses what is less than one for each shard; who writes the event by hand gets one for each.
            limits = replace(limits, **{name: max(value, lane.shards) for name, value in told.items() if value})
        return limits.shard(lane.shard, lane.shards)

    def mode_for(self, lane: Lane) -> Mode:
        """The mode of the lane's group, or else of its provider. Whichever is closed wins."""
        own, shared = (self._mode(target) for target in (lane.quota, lane.provider))
        return own if own is not Mode.OPEN else shared

    def _mode(self, target: str) -> Mode:
        change = self._modes.get(target)
        return Mode.OPEN if change is None else change.mode

    def resumed_at(self, lane: Lane) -> float:
        """When the lane's group or its provider was last opened, in seconds since 1970; 0 where nobody has done so."""
        changes = (self._modes.get(target) for target in (lane.quota, lane.provider))
        moments = (change.at for change in changes if change is not None and change.mode is Mode.OPEN)
        return max((moment.timestamp() for moment in moments if moment is not None), default=0.0)
