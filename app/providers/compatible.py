"""A provider that the deployment adds by a name of its own: any server with OpenAI's chat completions.

It is OpenAI's adapter at another address, with a key of its own or none, and without what is OpenAI's alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from openai import Omit

from app.providers.base import Access, Exchange, Headers
from app.providers.chat_stream import ChatStream
from app.providers.compatible_wire import answer_of, to_answer, to_body
from app.providers.openai import COMPLETIONS, OpenAIProvider
from app.providers.translation import Translation
from schemas.request import CompletionRequest
from streams.tokens import estimate_tokens


def meant_for_openai(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Headers that the SDK adds out of the environment, where they are meant for OpenAI and for nobody else."""
    stated = environment.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    custom = (line.partition(":")[0].strip() for line in stated if ":" in line)
    names = ("OpenAI-Organization", "OpenAI-Project", *custom)
    return tuple(name for name in names if name.lower() != "authorization")


class CompatibleProvider(OpenAIProvider):
    """The server at `access.base_url`, which ends before `/chat/completions`."""

    def __init__(self, name: str, access: Access) -> None:
        super().__init__(access)
        self.name = name
        if access.embedding_model is None:
            self.kinds = self.kinds - {"embedding"}
        self._unwanted: Mapping[str, Omit] = dict.fromkeys(meant_for_openai(os.environ), Omit())

    def _headers(self, headers: Headers) -> Mapping[str, str | Omit]:
        return {**self._unwanted, **super()._headers(headers)}

    def _completion(self, request: CompletionRequest, model: str) -> Exchange:
        translation = Translation()
        body = to_body(request, model, self.name, translation)
        return Exchange(COMPLETIONS, body, to_answer, translation=translation)

    def _streamed(self, request: CompletionRequest) -> ChatStream:
        return CompatibleStream(answer_of, estimate_tokens(request))


class CompatibleStream(ChatStream):
    """A stream that ends with a reason or with the mark of the end: not every server sends both."""

    @property
    def is_complete(self) -> bool:
        return (self._finish is not None and not self._is_hasty) or (self._is_done and self.has_told)
