"""Spillway's own topics in every compression: a topic's own setting, or a broker's, writes what it gets anew."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from app.devstack.stack import DevStack
from app.settings import Settings
from app.topics import build_topology
from schemas.response import Response
from streams.topology import LANE_TABLE, MARK_TABLE, REPORTS, REQUEST_TABLE, REQUESTS, RESPONSES, USAGE, dispatch_topic
from tests.support.clock.waiting import eventually
from tests.support.load.books import not_alike
from tests.support.reader.topics import configure, consume_until, publish, reading
from tests.support.stack.workers import WIDE_LANES, running_worker
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(280)]


@pytest.fixture
def recompressed(settings: Settings) -> Iterator[None]:
    topology = build_topology(settings)
    codecs = {
        topology.changelog(REQUEST_TABLE): "zstd",
        topology.changelog(MARK_TABLE): "lz4",
        topology.changelog(LANE_TABLE): "snappy",
        REPORTS: "lz4",
        USAGE: "gzip",
        RESPONSES: "snappy",
        **{dispatch_topic(name): "zstd" for name in topology.all_providers},
    }
    servers = settings.kafka_bootstrap_servers
    configure(servers, "compression.type", codecs)
    yield
    configure(servers, "compression.type", dict.fromkeys(codecs, "producer"))


@pytest.mark.usefixtures("recompressed")
async def test_tables_are_made_anew_from_changelogs_in_every_compression(stack: DevStack, settings: Settings) -> None:
    prefix, servers = unique("z"), settings.kafka_bootstrap_servers
    known = {f"{prefix}-{number}" for number in range(60)}
    sent = [request(prefix, identity) for identity in sorted(known)]
    async with reading(servers, RESPONSES) as consumer:
        with running_worker(stack, 9, **WIDE_LANES):
            await publish(servers, REQUESTS, sent)
            await answered(consumer, known)
        await asyncio.to_thread(shutil.rmtree, stack.folder / "worker-9")
        with running_worker(stack, 9, **WIDE_LANES):
            # Whoever is known is not answered again.
            await publish(servers, REQUESTS, [*sent, request(prefix, f"{prefix}-new")])
            found = await answered(consumer, {f"{prefix}-new"})
            assert not known & {one.request_id for one in found}
            await eventually(lambda: alike(settings, prefix), within=60, every=1.0, what="accounts are the ledger")


def request(prefix: str, identity: str) -> tuple[bytes, bytes]:
    workspace = f"{prefix}-w{len(identity) % 3}"
    # Long and always the same: a batch is left as it is where compressing makes it no smaller.
    body = {"request_id": identity, "workspace_id": workspace, "prompt": f"{identity} why " * 100}
    return workspace.encode(), json.dumps(body).encode()


async def answered(consumer: Any, wanted: set[str]) -> list[Response]:
    records = await consume_until(
        consumer,
        lambda found: wanted <= {Response.model_validate_json(record.value).request_id for record in found},
        within=90,
    )
    return [Response.model_validate_json(record.value) for record in records]


async def alike(settings: Settings, prefix: str) -> bool:
    return not await not_alike(settings, lambda workspace: workspace.startswith(prefix))
