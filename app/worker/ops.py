"""What those who run it ask a worker, put together."""

from __future__ import annotations

from functools import partial

from prometheus_client import generate_latest

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.kafka import cluster_of
from app.ops.backlog import Backlog
from app.ops.checks import PATIENCE, Check, Readiness, readiness
from app.ops.gauges import Gauges, Sources
from app.ops.months import Months
from app.ops.server import OpsServer
from app.worker.parts import Worker, reader
from app.worker.readiness import committed, is_ready, missing


def add_ops(worker: Worker, months: Months) -> None:
    """What those who run it ask a worker. It is the last to be closed: until then it says what goes on."""
    settings, app = worker.settings, worker.app
    worker.readers["stages"] = partial(committed, app)
    backlog = Backlog(cluster_of(settings), partial(reader, settings), worker.readers)
    database = ClickHouse(settings, use_database=False, timeout=PATIENCE)
    checks = {"kafka": Check(backlog.look), "clickhouse": Check(partial(_look_at, database))}

    async def ready() -> Readiness:
        return await readiness(missing(app), checks)

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


async def _look_at(database: ClickHouse) -> str | None:
    try:
        await database.query("SELECT 1")
    except ClickHouseError as error:
        return str(error)
    return None
