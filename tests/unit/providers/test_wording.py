"""Fields that only Spillway has said and that a model refuses: left out or said in other words, and remembered."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.providers import build_providers
from app.providers.claude_wire import to_body
from app.providers.errors import from_status
from app.providers.wording import MOST_MODELS, REMEMBERED_FOR, Wording
from app.settings import load_settings
from schemas.request import CommonRequest, CompletionRequest, EmbeddingRequest
from streams.dispatch.ports import Answer, Call, Delta, ErrorClass, Failure, Provider

ASKED = CompletionRequest(prompt="hi")
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [],
    "max_tokens": 4096,
    "temperature": 0.7,
    "stream": True,
    "stream_options": {"include_usage": True},
}


def error(message: str, **fields: object) -> dict[str, object]:
    return {"error": {"message": message, **fields}}


def refusal(body: object, status: int = 400) -> Failure:
    return from_status(status, {}, body)


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in BODY.items() if name not in names}


USE_OTHER = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
EXTRA = {"detail": [{"loc": ["body", "stream_options", "include_usage"], "msg": "Extra inputs are not permitted"}]}


def taught() -> list[tuple[object, dict[str, Any]]]:
    """One a line: the body of a refusal, and the request's body from then on."""
    lines = (Path(__file__).parents[2] / "data" / "refused_fields.jsonl").read_text(encoding="utf-8").splitlines()
    return [(case["told"], {**without(*case["without"]), **case["with"]}) for case in map(json.loads, lines)]


@pytest.mark.parametrize(("told", "then"), taught(), ids=str)
def test_what_was_refused_is_said_in_other_words_from_then_on(told: object, then: dict[str, Any]) -> None:
    wording = Wording("local")
    assert wording.said("m", BODY, ASKED) == BODY
    assert wording.learn("m", BODY, ASKED, refusal(told))
    assert wording.said("m", BODY, ASKED) == then
    assert wording.said("another", BODY, ASKED) == BODY
    assert not wording.learn("m", then, ASKED, refusal(told)), "no second time for the same"


@pytest.mark.parametrize(
    "told",
    [
        error("tools.0.name: invalid characters"),
        error("messages: too many images"),
        error("This model's maximum context length is 4096 tokens. Reduce max_tokens or the prompt."),
        error("'max_tokens' is too large: 4096. This model's maximum context length is 4096 tokens."),
        error("max_tokens: 4096 > 2048 - 9 of your request has"),
        error("max_tokens must be at most 3"),
        error("set max_tokens and try again"),
        error("`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
        error("Your input was flagged: temperature unsupported"),
        error("Incorrect API key provided; temperature unsupported"),
        None,
    ],
    ids=str,
)  # fmt: skip
def test_what_is_about_something_else_teaches_nothing(told: object) -> None:
    wording, failure = Wording("local"), refusal(told)
    assert not (failure.is_refusal and wording.learn("m", BODY, ASKED, failure))
    assert wording.said("m", BODY, ASKED) == BODY


def test_what_the_application_says_itself_is_not_touched() -> None:
    wording = Wording("local")
    warm = ASKED.model_copy(update={"temperature": 1.3})
    assert not wording.learn("m", BODY, warm, refusal(error("Unsupported value: 'temperature'")))
    passed = ASKED.model_copy(update={"provider_options": {"local": {"max_tokens": 4096, "temperature": 0.7}}})
    for told in (USE_OTHER, "temperature is deprecated", "max_tokens must be at most 2048"):
        assert not wording.learn("m", BODY, passed, refusal(error(told)))
    assert wording.learn("m", BODY, ASKED, refusal(error(USE_OTHER)))
    assert wording.said("m", BODY, passed) == BODY


def test_one_that_was_on_its_way_is_asked_again_too() -> None:
    wording = Wording("local")
    assert wording.learn("m", BODY, ASKED, refusal(EXTRA))
    assert wording.learn("m", BODY, ASKED, refusal(EXTRA))


def test_a_limit_that_falls_and_falls_ends() -> None:
    wording, body, times = Wording("local"), BODY, 0
    while wording.learn("m", body, ASKED, refusal(error(f"max_tokens must be at most {body['max_tokens'] - 1}"))):
        body, times = wording.said("m", BODY, ASKED), times + 1
    assert body["max_tokens"] == 256
    assert times < BODY["max_tokens"]


def test_a_habit_is_forgotten_after_a_day_and_there_are_not_too_many(caplog: pytest.LogCaptureFixture) -> None:
    moments = [0.0]
    wording = Wording("local", clock=lambda: moments[0])
    with caplog.at_level(logging.INFO):
        assert wording.learn("m", BODY, ASKED, refusal(EXTRA))
    assert caplog.messages == ["wording_learned: local: m: without stream_options"]
    moments[0] = REMEMBERED_FOR
    assert wording.said("m", BODY, ASKED) == BODY
    for number in range(MOST_MODELS + 1):
        assert wording.learn(f"m-{number}", BODY, ASKED, refusal(EXTRA))
    assert wording.said("m-0", BODY, ASKED) == BODY
    assert wording.said("m-1", BODY, ASKED) != BODY


def test_our_temperature_gives_way_to_a_top_p_at_claude() -> None:
    options = {"claude": {"top_p": 0.9}}
    assert "temperature" not in to_body(CompletionRequest(prompt="hi", provider_options=options), "claude-sonnet-4-5")
    asked = CompletionRequest(prompt="hi", temperature=0.2, provider_options=options)
    assert to_body(asked, "claude-3-7-sonnet-latest")["temperature"] == 0.2, "older models take both"


# Through the clients -----------------------------------------------------------------------------------------------

Refuse = Callable[[dict[str, Any]], object]


class Picky:
    """A server that refuses bodies as it likes, and answers all others. It keeps what it was asked."""

    def __init__(self) -> None:
        self.refuse: Refuse = lambda _: None
        self.bodies: list[dict[str, Any]] = []
        self.address = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if (refused := self.refuse(body)) is not None:
            return web.json_response(refused, status=422 if "detail" in str(refused) else 400)
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 1, "output_tokens": 1}
        if request.path.endswith("/embeddings"):
            return web.json_response({"data": [{"index": 0, "embedding": [1.0]}], "model": "m", "usage": usage})
        if request.path.endswith("/messages"):
            content = [{"type": "text", "text": "Low."}]
            return web.json_response({"model": "m", "content": content, "stop_reason": "end_turn", "usage": usage})
        choice = {"message": {"content": "Low."}, "delta": {"content": "Low."}, "finish_reason": "stop"}
        whole = {"model": "m", "choices": [choice], "usage": usage}
        if not body.get("stream"):
            return web.json_response(whole)
        return web.Response(text=f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n", content_type="text/event-stream")


@pytest.fixture
async def picky() -> AsyncIterator[Picky]:
    server, app = Picky(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def providers(picky: Picky, tmp_path: Path) -> AsyncIterator[dict[str, Provider]]:
    file = tmp_path / "settings.toml"
    file.write_text(
        f'[providers.local]\nkind = "openai_compatible"\nbase_url = "{picky.address}/v1"\n'
        f'embedding_model = "e"\nmodels = ["m"]\n'
    )
    named = ("claude", "openai", "perplexity")
    told = {f"{name}_base_url": picky.address for name in named} | {f"{name}_api_key": "key" for name in named}
    built = build_providers(load_settings(**told, settings_file=file, perplexity_interface="sonar"))
    yield {**built}
    for provider in built.values():
        await provider.close()


async def hear(_: Delta) -> None: ...


async def ask(provider: Provider, request: CommonRequest, *, stream: bool = False) -> Answer | Failure:
    model = "claude-sonnet-4-5" if provider.name == "claude" else provider.model_for(request)
    call = Call(request, model, timeout=10.0)
    return await provider.call(call, hear if stream else None)


def refusing(name: str, told: object) -> Refuse:
    return lambda body: told if name in body else None


@pytest.mark.parametrize(
    ("name", "stream", "field", "told"),
    [
        ("local", True, "stream_options", EXTRA),
        ("openai", True, "stream_options", EXTRA),
        ("local", False, "max_tokens", error(USE_OTHER, param="max_tokens")),
        ("local", True, "temperature", error("temperature is not supported")),
        ("openai", False, "temperature", error("Unsupported value", param="temperature")),
        ("claude", False, "temperature", {"type": "error", **error("`temperature` is deprecated for this model.")}),
        ("perplexity", False, "temperature", error("Unknown field: temperature")),
    ],
)
async def test_a_refused_field_is_an_attempt_of_its_own_and_the_next_is_asked_rightly(
    picky: Picky, providers: dict[str, Provider], name: str, stream: bool, field: str, told: object
) -> None:
    picky.refuse = refusing(field, told)
    provider, request = providers[name], CompletionRequest(prompt="hi", stream=stream)
    first = await ask(provider, request, stream=stream)
    assert isinstance(first, Failure)
    assert (first.code, first.error_class, first.is_outage) == ("field_refused", ErrorClass.RETRYABLE, False)
    assert not first.may_be_billed
    for _ in range(2):
        assert isinstance(await ask(provider, request, stream=stream), Answer)
    assert [field in body for body in picky.bodies] == [True, False, False]


async def test_vectors_may_come_as_numbers(picky: Picky, providers: dict[str, Provider]) -> None:
    picky.refuse = refusing("encoding_format", {"detail": "extra fields not permitted: ['encoding_format']"})
    request = EmbeddingRequest(kind="embedding", input="hi")
    results = [await ask(providers["local"], request) for _ in range(2)]
    assert [type(result) for result in results] == [Failure, Answer]


async def test_a_prompt_that_is_quoted_teaches_nothing(picky: Picky, providers: dict[str, Provider]) -> None:
    prompt = "temperature unsupported, and max_tokens must be at most 300"
    picky.refuse = lambda _: error(f"Cannot parse: {prompt}")
    result = await ask(providers["local"], CompletionRequest(prompt=prompt))
    assert isinstance(result, Failure)
    assert result.code == "invalid_request"
    picky.refuse = lambda _: None
    assert isinstance(await ask(providers["local"], CompletionRequest(prompt="hi")), Answer)
    assert picky.bodies[0].keys() == picky.bodies[1].keys()
    assert picky.bodies[1]["max_tokens"] == 4096
