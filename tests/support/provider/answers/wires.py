"""How each kind of provider reads its answers: whole, and as a stream."""

from __future__ import annotations

from collections.abc import Callable

from app.providers import agent_wire, claude_wire, compatible_wire, openai, perplexity_wire
from app.providers.agent_stream import AgentStream
from app.providers.chat_stream import ChatStream
from app.providers.claude_stream import ClaudeStream
from app.providers.compatible import CompatibleStream
from app.providers.reading import ToAnswer
from app.providers.stream import StreamedAnswer

#: Of a prompt of 40 tokens.
WIRES: dict[str, tuple[ToAnswer, Callable[[], StreamedAnswer]]] = {
    "claude": (claude_wire.to_answer, ClaudeStream),
    "openai": (openai.to_answer, lambda: ChatStream(openai.answer_of, 40)),
    "perplexity": (perplexity_wire.to_answer, lambda: ChatStream(perplexity_wire.answer_of, 40, exactly=True)),
    "named": (compatible_wire.to_answer, lambda: CompatibleStream(compatible_wire.answer_of, 40)),
    "agent": (agent_wire.to_answer, AgentStream),
}
