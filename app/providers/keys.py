"""A provider's keys: one or several, used in turn, out of a variable or a file; a refused one is set aside for a while.

The file is looked at again while the worker runs, so a key is changed without a restart. Which key a call took is told
by its place ("key 2 of 3 of AI_OPENAI_API_KEY_FILE") and in logs by a fingerprint, never by the key.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from streams.dispatch.ports import KEY_REFUSED, ErrorClass, Failure

log = logging.getLogger(__name__)

#: Seconds for which a refused key is not used while there is another one.
SET_ASIDE = 300.0
#: Seconds between two looks at a file.
LOOK_EVERY = 1.0
#: Keys that were in the file earlier and are still kept out of messages: calls with them may be under way.
REMEMBERED = 64

#: What may stand in an HTTP header without doubt.
_SENDABLE = re.compile(r"[\x21-\x7e]+")
#: The failures that say that the key or its account, and not the request, is the trouble. An account whose quota is
#: used up stays so for days; another key may be another account's.
_REFUSALS = ("bad_key", "forbidden", "quota_exhausted")


class BadKeyError(Exception):
    """A key cannot be used. The message names its place and says what to do; it never shows the key."""


@dataclass(frozen=True)
class Key:
    """One key, and where it comes from."""

    value: str = field(repr=False)
    place: str

    @property
    def fingerprint(self) -> str:
        """The same for the same key, and of no use to anybody else."""
        return hashlib.sha256(self.value.encode()).hexdigest()[:8]


class KeyRing:
    """The keys of one provider, in turn. For one event loop: nothing here waits or locks.

    `source` is the variable that states them, for people. Without keys the provider is called without one. Raises
    BadKeyError for a file that cannot be read and for what is no key; a file that turns bad later leaves the keys as
    they were.
    """

    def __init__(
        self, source: str, text: str = "", *, file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._file = file
        self._clock = clock
        self._aside: dict[str, float] = {}
        self._turn = 0
        self._known: deque[str] = deque(maxlen=REMEMBERED)
        self._looked_at = clock()
        self._version = _version(file)
        self._keys: tuple[Key, ...] = ()
        self._set(split_keys(source, _read(source, file) if file else text))
        if file and not self._keys:
            raise BadKeyError(f"{source}: the file {file} holds no key.")

    def __len__(self) -> int:
        return len(self._keys)

    def take(self) -> Key | None:
        """The next key in turn that is not set aside; where all are, the one for which that ends first.

        None: the provider needs no key.
        """
        self._look()
        usable = [key for key in self._keys if not self._is_aside(key)]
        if usable:
            self._turn += 1
            return usable[self._turn % len(usable)]
        return min(self._keys, key=lambda key: self._aside[key.value], default=None)

    def refuse(self, key: Key) -> bool:
        """The provider does not take this key. True if there is another one to try."""
        if not self._is_aside(key):
            what = f"{key.place} (fingerprint {key.fingerprint})"
            log.warning("key_refused: %s: another one, if there is one, is used for %g s", what, SET_ASIDE)
        self._aside[key.value] = self._clock() + SET_ASIDE
        self._look()
        return any(not self._is_aside(other) for other in self._keys)

    def accept(self, key: Key) -> None:
        """The provider took this key."""
        self._aside.pop(key.value, None)

    def secrets(self) -> tuple[str, ...]:
        """All that no message may show, the longest first: one key may be the beginning of another."""
        return tuple(sorted(self._known, key=len, reverse=True))

    def _is_aside(self, key: Key) -> bool:
        return self._aside.get(key.value, 0.0) > self._clock()

    def _set(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys
        self._aside = {key.value: self._aside[key.value] for key in keys if key.value in self._aside}
        self._known.extend(key.value for key in keys if key.value not in self._known)

    def _look(self) -> None:
        """Read the file again if it has changed."""
        now = self._clock()
        if self._file is None or now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        version = _version(self._file)
        if version == self._version:
            return
        self._version = version
        try:
            keys = split_keys(self._source, _read(self._source, self._file))
        except BadKeyError as error:
            log.warning("keys_kept: %s", error)
            return
        if not keys:
            # Whoever writes the file anew may have emptied it a moment before.
            log.warning("keys_kept: %s: the file %s holds no key", self._source, self._file)
            return
        self._set(keys)
        log.info("keys_read: %s: %s", self._source, ", ".join(key.fingerprint for key in keys))


class _Version(NamedTuple):
    """What tells a file from the one that was there before. An orchestrator's secret is a link that is moved."""

    changed: int
    size: int
    inode: int


def _version(file: Path | None) -> _Version | None:
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return _Version(found.st_mtime_ns, found.st_size, found.st_ino) if found else None


def _read(source: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadKeyError(f"{source}: the file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadKeyError(f"{source}: the file {file} is not UTF-8.") from None


def split_keys(source: str, text: str) -> tuple[Key, ...]:
    """The keys in a text, each once, separated by commas or lines. Raises BadKeyError for what no header can hold."""
    values = tuple(dict.fromkeys(part.strip() for part in re.split(r"[,\r\n]", text) if part.strip()))
    keys = tuple(Key(value, _place(number, len(values), source)) for number, value in enumerate(values, 1))
    for key in keys:
        if not _SENDABLE.fullmatch(key.value):
            # Found at the first call otherwise, as an error of the HTTP library that shows the key.
            raise BadKeyError(f"{key.place} holds characters that no key has, such as spaces.")
    return keys


def _place(number: int, count: int, source: str) -> str:
    return source if count == 1 else f"key {number} of {count} of {source}"


def judge_key(failure: Failure, key: Key | None, ring: KeyRing) -> Failure:
    """What a failure means for the key of its call: a refusal is one of the key while there is another one to try.

    The next key is another attempt, which the lane makes at once and counts like any other.
    """
    if key is None or failure.code not in _REFUSALS:
        return failure
    another = ring.refuse(key)
    told = replace(failure, message=f"{failure.message.rstrip('.')} ({key.place}).")
    return replace(told, error_class=ErrorClass.RETRYABLE, code=KEY_REFUSED) if another else told
