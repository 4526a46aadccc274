"""Workers, requests and answers of the tests of lanes."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiokafka import AIOKafkaConsumer

from app.settings import Settings
from schemas.control import LaneState
from schemas.response import Response
from streams.topology import LANES
from tests.support.reader.topics import consume_until, reading

#: Seconds that a call may take to its provider where other work has the processors.
BUSY_MACHINE = 3.0


def requests(prefix: str, count: int, more: str = "", **fields: Any) -> list[tuple[bytes | None, bytes | None]]:
    """Records of `ai.requests`, from ten workspaces; `more` makes their prompts longer."""
    found: list[tuple[bytes | None, bytes | None]] = []
    for number in range(count):
        workspace = f"w{number % 10}"
        body = {"request_id": f"{prefix}-{number}", "workspace_id": workspace, "prompt": f"{prefix} {number}{more}"}
        found.append((workspace.encode(), json.dumps({**body, "max_tokens": 16, **fields}).encode()))
    return found


async def answers(consumer: AIOKafkaConsumer, prefix: str, count: int, within: float = 60.0) -> list[Response]:
    """So many terminal responses of the requests with this prefix."""
    found = await consume_until(
        consumer,
        lambda records: len({record.value for record in records}) >= count,
        only=lambda record: prefix.encode() in record.value,
        within=within,
    )
    return list({(r := Response.model_validate_json(record.value)).request_id: r for record in found}.values())


async def lane_state(settings: Settings, lane: str, wanted: Any = lambda _: True, within: float = 20.0) -> LaneState:
    """The first state of a lane, from now on, that is wanted: one that lasts. A lane says again every few seconds how
    it stands, and at once only what is new.
    """
    async with hearing_lanes(settings) as heard:
        return await lane_said(heard, lane, wanted, within)


def hearing_lanes(settings: Settings) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """What lanes say from now on. Listen before it is done what makes a state that does not last."""
    return reading(settings.kafka_bootstrap_servers, LANES)


async def lane_said(
    heard: AIOKafkaConsumer, lane: str, wanted: Any = lambda _: True, within: float = 20.0
) -> LaneState:
    """The first of the states that are heard of a lane that is wanted."""
    found = await consume_until(
        heard,
        bool,
        only=lambda record: (
            record.key.decode().startswith(lane) and wanted(LaneState.model_validate_json(record.value))
        ),
        within=within,
    )
    return LaneState.model_validate_json(found[0].value)
