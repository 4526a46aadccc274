"""Names of attributes. Those without `spillway.` are OpenTelemetry's: general, messaging and GenAI conventions.

The conventions' own Python package marks its modules as internal, so the names are written here; a unit test compares
them with it.
"""

from __future__ import annotations

ERROR_TYPE = "error.type"

MESSAGING_SYSTEM = "messaging.system"
OPERATION_TYPE = "messaging.operation.type"
OPERATION_NAME = "messaging.operation.name"
DESTINATION = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
OFFSET = "messaging.kafka.offset"
CONSUMER_GROUP = "messaging.consumer.group.name"
MESSAGE_ID = "messaging.message.id"
BODY_SIZE = "messaging.message.body.size"
KAFKA = "kafka"

GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"

REQUEST_ID = "spillway.request_id"
WORKSPACE = "spillway.workspace_id"
LANE = "spillway.lane"
ATTEMPT = "spillway.attempt"
PROVIDER = "spillway.provider"
IN_DOUBT = "spillway.in_doubt"
ABANDONED = "spillway.abandoned"
BATCH = "spillway.batch.rows"
QUEUED = "spillway.queued"

#: The conventions' names of operations and providers; whatever else there is has its own.
OPERATIONS = {"completion": "chat", "embedding": "embeddings"}
PROVIDERS = {"claude": "anthropic"}


def own(name: str) -> str:
    """The attribute of a fact that only Spillway knows."""
    return f"spillway.{name}"
