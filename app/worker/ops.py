"""What those who run it ask a worker, put together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

from prometheus_client import generate_latest

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.kafka import cluster_of
from app.ops.ages import BacklogAges, Places, first_unread
from app.ops.backlog import Backlog
from app.ops.checks import PATIENCE, Check, Readiness, readiness
from app.ops.gauges import Gauges, Sources
from app.ops.months import Months
from app.ops.server import OpsServer
from app.topics import build_topology
from app.worker.parts import Worker, reader
from app.worker.readiness import committed, is_ready, missing
from app.worker.standstill import Watch
from streams.runtime.progress import Standing
from streams.runtime.transport import AckLastConsumer


def add_ops(worker: Worker, months: Months) -> None:
    """What those who run it ask a worker. It is the last to be closed: until then it says what goes on."""
    settings, app = worker.settings, worker.app
    worker.readers["stages"] = partial(committed, app)
    backlog = Backlog(cluster_of(settings), partial(reader, settings), worker.readers)
    database = ClickHouse(settings, use_database=False, timeout=PATIENCE)
    checks = {"kafka": Check(backlog.look), "clickhouse": Check(partial(_look_at, database))}

    async def standings() -> Mapping[str, Standing] | None:
        """Progress can be expected only of a worker that has its partitions, with a broker and a ledger that answer."""
        if not is_ready(app) or await checks["kafka"].see() is not None:
            return None
        found = {name: stage.standing() for name, stage in app.stages.items()}
        found |= cast(AckLastConsumer, app.consumer).reading(backlog.ends)
        if worker.sinks is not None and await checks["clickhouse"].see() is None:
            found["the sinks"] = worker.sinks.reading(backlog.ends)
        return found

    async def unread() -> tuple[Places, Places]:
        await checks["kafka"].see()
        return first_unread(backlog.committed.values(), {}, backlog.ends), backlog.ends

    oldest = BacklogAges(cluster_of(settings), build_topology(settings).topics(), unread)
    if settings.metrics_enabled:
        worker.background.append(oldest.run())

    watch = worker.watch = Watch(standings, settings.standstill_timeout)
    worker.background.append(watch.run())

    async def ready() -> Readiness:
        own = {"partitions": missing(app), "progress": watch.reason, "stages": _paused(_reasons(worker))}
        own["clock"] = worker.clock_reason()
        return await readiness(own, checks)

    async def exposition() -> bytes:
        await checks["kafka"].see()
        return generate_latest(worker.registry)

    if settings.metrics_enabled:
        worker.registry.register(
            Gauges(
                Sources(
                    lanes=worker.lanes,
                    availability=lambda: worker.availability.standings,
                    months=months.overview,
                    backlog=lambda: backlog.records,
                    partitions=lambda: len(app.consumer.assignment()) if is_ready(app) else 0,
                    apart=worker.clock.apart,
                    still=lambda: watch.still,
                    ages=oldest.ratios,
                    paused=lambda: {name: reason is not None for name, reason in _reasons(worker).items()},
                )
            )
        )
    server = OpsServer(
        settings.ops_host,
        settings.ops_port,
        ready=ready,
        exposition=exposition if settings.metrics_enabled else None,
        note=worker.settings.data_dir / "ops",
    )
    worker.start.insert(0, server.start)
    worker.close += [check.stop for check in checks.values()]
    worker.close += [backlog.close, database.close, server.stop]


def _reasons(worker: Worker) -> dict[str, str | None]:
    """Why each stage is paused; None: it is not."""
    found = {name: pause.reason for name, pause in worker.app.pauses.items()}
    return found | ({"sinks": worker.sinks.paused} if worker.sinks is not None else {})


def _paused(reasons: Mapping[str, str | None]) -> str | None:
    """Which stages are paused, and why."""
    told = [f"{name} is paused: {reason}" for name, reason in reasons.items() if reason is not None]
    return "; ".join(told) or None


async def _look_at(database: ClickHouse) -> str | None:
    try:
        await database.query("SELECT 1")
    except ClickHouseError as error:
        return str(error)
    return None
