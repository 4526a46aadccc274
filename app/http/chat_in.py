"""A body of OpenAI's chat completions as a request of the contract. Pure.

Messages, tools and the response format are in this form already. What the contract has no field for (`top_p`, `seed`,
…) goes to the providers that speak this format, as their options; what would change the shape of the answer is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.http.problems import Problem

#: Fields that are the same in the contract, among them the contract's own (`extra_body` of the SDKs).
SAME = ("temperature", "tools", "response_format", "metadata")
OWN = ("preferred_providers", "cache", "priority", "purpose")
#: Read here, and nothing to pass on: `store` asks OpenAI to keep the answer, which is the ledger's matter.
READ = frozenset(
    {
        *("model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "user"),
        *("n", "logprobs", "top_logprobs", "modalities", "audio", "functions", "function_call", "store"),
        *("provider_options", "parallel_tool_calls", "tool_choice", *SAME, *OWN),
    }
)
#: Stands for "whatever the deployment's default model is": the SDKs insist on a model.
DEFAULT_MODEL = "default"

_CLAUDE_CHOICE: Mapping[str, str] = {"auto": "auto", "required": "any", "any": "any", "none": "none"}


def completion_fields(body: Mapping[str, Any], dialect: Iterable[str]) -> dict[str, Any]:
    """The contract's fields; `dialect` are the providers that speak OpenAI's format. Raises Problem."""
    _refuse(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Problem(400, "invalid_request", "messages: must be a list with at least one message.", param="messages")
    stop = body.get("stop")
    fields: dict[str, Any] = {
        "kind": "completion",
        "model": model_of(body),
        "messages": [_message(message, place) for place, message in enumerate(messages)],
        "max_tokens": _first(body, "max_completion_tokens", "max_tokens"),
        "stop": [stop] if isinstance(stop, str) else stop,
        "user_id": body.get("user"),
        "provider_options": _options(body, dialect),
    }
    return _said(fields | {name: body.get(name) for name in (*SAME, *OWN)})


def model_of(body: Mapping[str, Any]) -> str | None:
    """The model that is asked for; None for the deployment's default."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Problem(400, "invalid_request", "model: must be the name of a model, or `default`.", param="model")
    return None if model == DEFAULT_MODEL else model


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, {})}


def _refuse(body: Mapping[str, Any]) -> None:
    """What the answer of a stream of events has no room for."""
    if body.get("n") not in (None, 1):
        raise _unsupported("n", "only one answer is given to a request")
    if body.get("logprobs") or body.get("top_logprobs"):
        raise _unsupported("logprobs", "they are not passed on")
    if body.get("audio") or body.get("modalities") not in (None, [], ["text"]):
        raise _unsupported("modalities", "only text is answered")
    if body.get("functions") or body.get("function_call"):
        raise _unsupported("functions", "use `tools`")


def _unsupported(param: str, why: str) -> Problem:
    return Problem(400, "unsupported_parameter", f"{param}: not supported here, {why}.", param=param)


def _message(message: Any, place: int) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Problem(400, "invalid_request", f"messages.{place}: must be an object.", param=f"messages.{place}")
    known = ("role", "content", "name", "tool_call_id", "tool_calls")
    told = {name: message[name] for name in known if message.get(name) is not None}
    if told.get("role") == "developer":
        told["role"] = "system"
    # An assistant that only calls tools says nothing, which is null there and an empty text here.
    return {"content": "", **told}


def _options(body: Mapping[str, Any], dialect: Iterable[str]) -> dict[str, Any]:
    """By provider: what the contract has no field for, below what the request itself says in `provider_options`."""
    more = {name: value for name, value in body.items() if name not in READ and value is not None}
    choice = {name: body[name] for name in ("tool_choice", "parallel_tool_calls") if body.get(name) is not None}
    options = {name: {**more, **choice} for name in dialect if more or choice}
    if choice:
        options["claude"] = {"tool_choice": _claude_choice(body)}
    own = body.get("provider_options")
    for name, told in own.items() if isinstance(own, dict) else ():
        options[name] = {**options.get(name, {}), **told} if isinstance(told, dict) else told
    return options


def _claude_choice(body: Mapping[str, Any]) -> dict[str, Any]:
    """The choice of tools in Claude's words. Raises Problem for one that is not known: taken for `auto`, it would let
    a model call what must not be called. Source: "Tool use" of Anthropic's Messages API.
    """
    asked = body.get("tool_choice")
    kind, name = (asked.get("type"), _name_in(asked)) if isinstance(asked, dict) else (asked, None)
    if kind in ("function", "tool") and name is not None:
        choice: dict[str, Any] = {"type": "tool", "name": name}
    elif kind is None or kind in _CLAUDE_CHOICE:
        choice = {"type": _CLAUDE_CHOICE.get(kind or "auto", "auto")}
    else:
        raise _unsupported("tool_choice", "use `auto`, `required`, `none`, or the name of one function")
    if body.get("parallel_tool_calls") is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _name_in(choice: Mapping[str, Any]) -> str | None:
    """The function that is to be called, in the form of the chat completions, of the Responses, or of Claude."""
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else choice.get("name")
    return name if isinstance(name, str) and name else None


def _first(body: Mapping[str, Any], *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)
