"""Tokens counted for estimates of cost: by OpenAI's own tokenizer where it is installed, never knowingly too low.

The tokenizer is the package `toktok-rs` (the extra `tokenizer`), which has OpenAI's vocabulary inside and downloads
nothing. It is exact for OpenAI's models since GPT-4o. Other tokenizers make more tokens of the same text: by how much
was measured over 28 kinds of text, and their models count as so many times as much. Without the package, two bytes are
a token. docs/decisions/0006-tokens-counted.md has the figures, and what they leave open.
"""

from __future__ import annotations

import importlib
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from streams.tokens import TOKENS_PER_SECOND, Measure

log = logging.getLogger(__name__)

ENCODING = "o200k_base"
#: The rule where there is no tokenizer.
BYTES_PER_TOKEN = 2


@dataclass(frozen=True)
class Family:
    """Models that count alike. `factor` is how many times the tokens of `ENCODING` a text has at most, but for rare
    ones; `image` is what the largest picture counts as, `second` a second of sound, and `tools` what a provider adds to
    a prompt with tools.
    """

    models: re.Pattern[str]
    factor: float = 1.0
    image: int = 4_784
    second: int = TOKENS_PER_SECOND
    tools: int = 0


def _named(pattern: str) -> re.Pattern[str]:
    """Models by how their names begin, also behind a gateway (`openai/…`) and fine-tuned (`ft:…`)."""
    return re.compile(rf"(?:[a-z]+/)?(?:ft:)?(?:{pattern})", re.IGNORECASE)


#: The first that a name fits counts. Sources: the model list of OpenAI's tokenizer; the pages on pictures of OpenAI
#: (gpt-4o-mini counts one of eight tiles as 2,833 and 8 times 5,667) and of Anthropic (4,784 at most); Anthropic's
#: table of what tools add (804 at most).
FAMILIES = (
    Family(_named(r"gpt-4o-mini"), image=48_169, second=10),
    Family(_named(r"gpt-4o|gpt-4\.[15]|gpt-5|gpt-audio|gpt-realtime|chatgpt-4o|o[134](?!\d)|codex"), second=10),
    Family(_named(r"(?:.*\.)?claude"), factor=2.25, tools=804),
    Family(_named(""), factor=1.75),
)

Count = Callable[[Sequence[str]], int]


@lru_cache(maxsize=1)
def _tokenizer() -> Count | None:
    """OpenAI's, None where the package is not installed. Loading it takes half a second and some 60 MB, once."""
    try:
        toktok = importlib.import_module("toktok")
    except ImportError:
        log.warning(
            "no_tokenizer: costs are estimated at %d bytes a token; install the extra `tokenizer`", BYTES_PER_TOKEN
        )
        return None
    # The vocabulary is loaded by the first count. One thread: for a few texts a pool costs more than it saves.
    toktok.batch_count([""], ENCODING, threads=1)
    return lambda texts: sum(toktok.batch_count(texts, ENCODING, threads=1))


def warm_up() -> None:
    """Load what there is: at the start, and not at the first request."""
    _tokenizer()


@lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """The family of a model. Bounded: requests may name any."""
    return next(family for family in FAMILIES if family.models.match(model))


@lru_cache(maxsize=1024)
def measure_for(model: str) -> Measure:
    """How the prompt of a call to this model is measured for its cost."""
    family = family_of(model)
    return Measure(lambda texts: _count(texts, family.factor), family.image, family.second)


def _count(texts: Sequence[str], factor: float) -> int:
    count = _tokenizer()
    if count is None:
        return sum(math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN) for text in texts)
    return math.ceil(_tokens(count, tuple(texts)) * factor)


@lru_cache(maxsize=4)
def _tokens(count: Count, texts: tuple[str, ...]) -> int:
    """A request's texts are asked for once for each provider that may answer, one after another."""
    try:
        return count(texts)
    except UnicodeEncodeError:
        # Half a surrogate pair is no Unicode, and a JSON text may hold one all the same.
        return count([text.encode(errors="replace").decode() for text in texts])
