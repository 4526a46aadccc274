"""One request through the running stack."""

from __future__ import annotations

import json
from typing import Any

from app.settings import Settings
from schemas.response import Response
from streams.topology import RESPONSES
from tests.support.reader.topics import consume_until, publish, reading
from tests.support.values.names import unique


async def answer(settings: Settings, **fields: Any) -> Response:
    """Publish one request and wait for its response."""
    request_id = unique("kind")
    body = {"request_id": request_id, "workspace_id": "kinds", **fields}
    async with reading(settings.kafka_bootstrap_servers, RESPONSES) as consumer:
        await publish(settings.kafka_bootstrap_servers, "ai.requests", [(b"kinds", json.dumps(body).encode())])
        [found] = await consume_until(consumer, bool, only=lambda record: request_id.encode() in record.value)
    return Response.model_validate_json(found.value)
