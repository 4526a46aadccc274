"""How a client knows whom it talks to (TLS) and shows who it is (SASL), as values that are wrong at once or never.

The Kafka part is `KafkaSecurity`; ClickHouse's client wants the files of `Tls` themselves. Both are checked when they
are made, so that a mistyped path ends a start and not a night. What is read from the files is read once: a renewed
certificate needs a restart.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

PROTOCOLS: tuple[str, ...] = get_args(Protocol)
MECHANISMS: tuple[str, ...] = get_args(Mechanism)


class SecurityError(ValueError):
    """A part is wrong. `part` names it; the message says what to do, and shows no secret."""

    def __init__(self, part: str, what: str) -> None:
        super().__init__(f"{part}: {what}")
        self.part = part
        self.what = what


class OneSidedGoodbye(ssl.SSLObject):
    """Says that it closes, and does not wait for the other side to say so as well.

    The event loop would wait for half a minute where the answer does not come, and a stop or a command with it. TLS
    lets either side leave like this (RFC 8446, 6.1); Kafka acknowledges what it has taken, so nothing hangs on it.
    """

    def unwrap(self) -> None:
        with suppress(ssl.SSLWantReadError):
            super().unwrap()


@dataclass(frozen=True)
class Tls:
    """Files in PEM format: who is trusted (the system's authorities where none is named), and who we are."""

    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        if self.certificate_file is None and self.key_file is not None:
            raise SecurityError("certificate_file", "is missing; a key is of no use without its certificate.")
        if self.certificate_file is not None and self.key_file is None:
            raise SecurityError("key_file", "is missing; a certificate is of no use without its key.")
        for part in ("ca_file", "certificate_file", "key_file"):
            _must_be_readable(part, getattr(self, part))
        if self.ca_file is not None or self.certificate_file is not None:
            # Made now, so that what is in the files is checked as well.
            _ = self.context

    @cached_property
    def context(self) -> ssl.SSLContext:
        """A client's context, which checks the server's certificate and its name."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError:
            raise SecurityError("ca_file", f"{self.ca_file} holds no certificate in PEM format.") from None
        context.sslobject_class = OneSidedGoodbye
        if self.certificate_file is not None:
            self._show(context)
        return context

    def _show(self, context: ssl.SSLContext) -> None:
        encrypted = False

        def no_passphrase() -> str:
            # Without this OpenSSL asks at the terminal, and a service would wait for ever.
            nonlocal encrypted
            encrypted = True
            return ""

        try:
            context.load_cert_chain(str(self.certificate_file), str(self.key_file), password=no_passphrase)
        except (ssl.SSLError, ValueError) as error:
            if encrypted:
                what = f"{self.key_file} is encrypted; give a key without a passphrase, readable by this user only."
            elif "MISMATCH" in str(error):
                what = f"{self.key_file} is not the key of {self.certificate_file}."
            else:
                what = f"{self.certificate_file} and {self.key_file} are no certificate and key in PEM format."
            raise SecurityError("key_file", what) from None


@dataclass(frozen=True)
class KafkaSecurity:
    """How to talk to Kafka. Without arguments: plainly, as nobody.

    `protocol` is Kafka's name for it: `SSL` and `SASL_SSL` use TLS, with the authority that signed the brokers'
    certificates in `ca_file`, and a client's own certificate where the brokers ask for one; `SASL_SSL` and
    `SASL_PLAINTEXT` log in with `user` and `password`. Raises SecurityError.
    """

    protocol: str = "PLAINTEXT"
    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None
    sasl_mechanism: str = "SCRAM-SHA-512"
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise SecurityError("security_protocol", f"{self.protocol!r} is not known; use {_listed(PROTOCOLS)}.")
        if self.sasl_mechanism not in MECHANISMS:
            raise SecurityError("sasl_mechanism", f"{self.sasl_mechanism!r} is not known; use {_listed(MECHANISMS)}.")
        self._login_fits()
        self._files_fit()

    @property
    def uses_tls(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def logs_in(self) -> bool:
        return self.protocol.startswith("SASL_")

    @cached_property
    def tls(self) -> Tls:
        return Tls(self.ca_file, self.certificate_file, self.key_file)

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """What each of aiokafka's clients is given. It holds the password: for a client, never for a log."""
        found: dict[str, Any] = {}
        if self.protocol != "PLAINTEXT":
            found["security_protocol"] = self.protocol
        if self.uses_tls:
            found["ssl_context"] = self.tls.context
        if self.logs_in:
            found["sasl_mechanism"] = self.sasl_mechanism
            found["sasl_plain_username"] = self.user
            found["sasl_plain_password"] = self.password
        return found

    def _login_fits(self) -> None:
        """Who states a user believes to log in: a protocol that would not is refused, not obeyed."""
        for part in ("user", "password"):
            if self.logs_in and not getattr(self, part):
                raise SecurityError(part, f"is missing; {self.protocol} needs a user and a password.")
            if not self.logs_in and getattr(self, part):
                raise SecurityError(
                    part, f"is of no use with {self.protocol}; set the security protocol to SASL_SSL, or leave it."
                )

    def _files_fit(self) -> None:
        if self.uses_tls:
            _ = self.tls
            return
        for part in ("ca_file", "certificate_file", "key_file"):
            if getattr(self, part) is not None:
                with_tls = "SASL_SSL" if self.logs_in else "SSL"
                raise SecurityError(
                    part,
                    f"is of no use with {self.protocol}; set the security protocol to {with_tls}, or leave it.",
                )


def _must_be_readable(part: str, file: str | Path | None) -> None:
    if file is None:
        return
    try:
        with Path(file).open("rb"):
            return
    except OSError as error:
        raise SecurityError(part, f"{file} cannot be read: {error.strerror}.") from None


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
