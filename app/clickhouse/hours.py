"""The hourly figures: counted anew from the rows, never added to.

A figure that is added to counts a redelivered batch twice. Here the hours that a batch has touched are counted again
from the rows, each once, and the latest count replaces the earlier ones: its time is taken before it reads, so a count
that began after an insert always has it. Counting an hour more often than needed changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.clickhouse.client import ClickHouse
from streams.account.ports import WorkspaceHour

#: Workspaces in one statement: their names are part of its address, which has an end.
MOST_WORKSPACES = 1_000


@dataclass(frozen=True)
class Rollup:
    """Figures by workspace and hour. `figures` are what one row of `source` counts, by the name of their sum."""

    table: str
    source: str
    moment: str
    figures: tuple[tuple[str, str], ...]

    def recount(self) -> str:
        """The statement that counts these workspaces' hours anew.

        What an hour had before is counted with zeros: a month that has no row any more must not keep its old figures.
        """
        names = ", ".join(name for name, _ in self.figures)
        sums = ", ".join(f"sum({name})" for name, _ in self.figures)
        values = ", ".join(f"{value} AS {name}" for name, value in self.figures)
        zeros = ", ".join(f"{name} * 0" for name, _ in self.figures)
        return f"""
INSERT INTO {self.table} (workspace_id, hour, budget_month, {names}, counted_at)
SELECT workspace_id, hour, budget_month, {sums}, now64(9)
FROM
(
    SELECT workspace_id, toStartOfHour({self.moment}) AS hour, budget_month, {values}
    FROM {self.source} FINAL
    WHERE workspace_id IN {{workspaces:Array(String)}}
      AND {self.moment} >= {{start:DateTime64(3, 'UTC')}} AND {self.moment} < {{end:DateTime64(3, 'UTC')}}
      AND toStartOfHour({self.moment}) IN {{hours:Array(DateTime('UTC'))}}
    UNION ALL
    SELECT workspace_id, hour, budget_month, {zeros}
    FROM {self.table}
    WHERE workspace_id IN {{workspaces:Array(String)}} AND hour IN {{hours:Array(DateTime('UTC'))}}
)
GROUP BY workspace_id, hour, budget_month
SETTINGS do_not_merge_across_partitions_select_final = 1, max_partitions_per_insert_block = 0
"""  # noqa: S608 - of this file's own names


USAGE_HOURS = Rollup(
    "usage_hours",
    "attempts",
    "started_at",
    (
        ("attempts", "toUInt64(1)"),
        ("failed_attempts", "toUInt64(outcome = 'failed')"),
        ("in_doubt_attempts", "toUInt64(outcome = 'in_doubt')"),
        ("unpriced_attempts", "toUInt64(cost_source = 'unpriced')"),
        ("prompt_tokens", "attempts.prompt_tokens"),
        ("completion_tokens", "attempts.completion_tokens"),
        ("cost", "toDecimal128(attempts.cost, 9)"),
        ("estimated_cost", "if(cost_source IN ('estimated', 'unpriced'), attempts.cost, 0)::Decimal(38, 9)"),
    ),
)

OUTCOME_HOURS = Rollup(
    "outcome_hours",
    "outcomes",
    "answered_at",
    (
        ("requests", "toUInt64(1)"),
        ("succeeded", "toUInt64(status = 'succeeded')"),
        ("cached", "toUInt64(outcomes.cached)"),
        ("saved", "toDecimal128(outcomes.saved, 9)"),
    ),
)


async def recount(database: ClickHouse, rollup: Rollup, touched: Collection[WorkspaceHour]) -> None:
    """Count these hours anew. Raises ClickHouseError."""
    hours = sorted({hour for _, hour in touched})
    workspaces = sorted({workspace for workspace, _ in touched})
    if not hours:
        return
    period = {"start": _text(hours[0]), "end": _text(hours[-1] + timedelta(hours=1))}
    for begin in range(0, len(workspaces), MOST_WORKSPACES):
        part = workspaces[begin : begin + MOST_WORKSPACES]
        await database.command(
            rollup.recount(), {"workspaces": part, "hours": [_text(hour) for hour in hours], **period}
        )


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
