"""The rows of the table `alerts`: what was announced of a month (`workspace/month`), and a workspace's habit
(`workspace/hours`).
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import orjson

from schemas.alert import Alert, BudgetAlert, SpendAnomaly
from schemas.base import Month
from streams.alert.decide import MonthNote
from streams.alert.habit import Habit, Meter

Note = MonthNote | Habit


def month_key(workspace_id: str, month: Month) -> str:
    return f"{workspace_id}/{month}"


def habit_key(workspace_id: str) -> str:
    return f"{workspace_id}/hours"


def encode_note(note: Note) -> bytes:
    if isinstance(note, MonthNote):
        said = {str(threshold): times for threshold, times in note.said.items()}
        return _dump({"last": note.last, "high": note.high, "said": said, "unsent": _events(note.unsent)})
    meters = {month: [meter.base, meter.seen] for month, meter in note.meters.items()}
    hours = {"hour": note.hour, "meters": meters, "past": note.past, "told": note.told}
    return _dump({**hours, "unsent": _events(note.unsent)})


def decode_note(value: bytes) -> Note:
    body = orjson.loads(value)
    if "hour" not in body:
        said = {int(threshold): times for threshold, times in body["said"].items()}
        alerts = tuple(BudgetAlert.model_validate(event) for event in body["unsent"])
        return MonthNote(Decimal(body["last"]), Decimal(body["high"]), said, alerts)
    return Habit(
        hour=body["hour"],
        meters={month: Meter(Decimal(base), _amount(seen)) for month, (base, seen, *_) in body["meters"].items()},
        past=tuple(Decimal(spent) for spent in body["past"]),
        told=body["told"],
        unsent=tuple(SpendAnomaly.model_validate(event) for event in body["unsent"]),
    )


def _amount(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _events(alerts: Iterable[Alert]) -> list[dict[str, Any]]:
    return [alert.model_dump(mode="json") for alert in alerts]


def _dump(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body, default=str)
