"""What providers have published of their requests: the parameter types of their own SDKs, as a judge of bodies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from anthropic.types import message_create_params
from jsonschema import Draft202012Validator
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

#: By path below the provider's base URL.
_PARAMETERS: Mapping[str, tuple[Any, Any]] = {
    "/v1/messages": (
        message_create_params.MessageCreateParamsNonStreaming,
        message_create_params.MessageCreateParamsStreaming,
    ),
    "/chat/completions": (
        completion_create_params.CompletionCreateParamsNonStreaming,
        completion_create_params.CompletionCreateParamsStreaming,
    ),
    "/embeddings": (embedding_create_params.EmbeddingCreateParams, embedding_create_params.EmbeddingCreateParams),
}


#: Fields that Anthropic's SDK has dropped with the newer version of the API; the older one still takes them.
_SAMPLING = {"/v1/messages": {"temperature", "top_p", "top_k"}}


def check(path: str, body: Mapping[str, Any]) -> None:
    """Raises jsonschema.ValidationError for a body that does not fit, and for a field that the SDK does not know."""
    plain, streaming = _PARAMETERS[path]
    known = {name: value for name, value in body.items() if name not in _SAMPLING.get(path, ())}
    _validator(streaming if body.get("stream") else plain).validate(known)


@lru_cache
def _validator(parameters: Any) -> Draft202012Validator:
    """As JSON Schema: pydantic itself reads an Iterable late, and stumbles over recursive ones."""
    schema = TypeAdapter(parameters).json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        if "properties" in part:
            part.setdefault("additionalProperties", False)
    return Draft202012Validator(schema)
