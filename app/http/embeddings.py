"""OpenAI's embeddings: a body as a request of the contract, and a response as its answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.http.chat_in import OWN, model_of
from app.http.chat_out import more
from app.http.problems import Problem
from schemas.response import Response

_READ = frozenset({"model", "input", "dimensions", "encoding_format", "user", "metadata", "provider_options", *OWN})


def embedding_fields(body: Mapping[str, Any], dialect: Iterable[str]) -> dict[str, Any]:
    """The contract's fields; `dialect` are the providers that speak OpenAI's format. Raises Problem."""
    texts = body.get("input")
    if not isinstance(texts, str) and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        told = "input: must be a text or a list of texts; lists of token numbers are not taken."
        raise Problem(400, "invalid_request", told, param="input")
    extra = {name: value for name, value in body.items() if name not in _READ and value is not None}
    fields = {
        "kind": "embedding",
        "model": model_of(body),
        "input": texts,
        "user_id": body.get("user"),
        "provider_options": body.get("provider_options") or {name: extra for name in dialect if extra},
    }
    same = ("dimensions", "encoding_format", "metadata", *OWN)
    fields |= {name: body.get(name) for name in same}
    return {name: value for name, value in fields.items() if value not in (None, {})}


def embedding_list(response: Response, asked: str) -> dict[str, Any]:
    """The vectors, in the order of the texts."""
    used = response.usage
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(response.embeddings)
        ],
        "model": response.model or asked,
        "usage": {"prompt_tokens": used.prompt_tokens, "total_tokens": used.total_tokens},
        **more(response),
    }
