"""Where Kafka is, and how its clients are let in."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from app.security import KafkaSecurity, Mechanism, Protocol
from app.settings.base import Part, named, unset_if_empty


class KafkaSettings(Part):
    """The deployment's Kafka."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_application_id: str = Field(default="spillway", pattern=r"^[A-Za-z0-9._-]{1,200}$")
    kafka_session_timeout: float = Field(default=10.0, ge=6, le=1_800, description="seconds until one counts as dead")
    kafka_security_protocol: Protocol = "PLAINTEXT"
    kafka_ca_file: Path | None = Field(default=None, description="who signed the brokers' certificates; PEM")
    kafka_certificate_file: Path | None = Field(default=None, description="our own certificate; PEM")
    kafka_key_file: Path | None = Field(default=None, description="its key; PEM, without a passphrase")
    kafka_sasl_mechanism: Mechanism = "SCRAM-SHA-512"
    kafka_user: str | None = None
    kafka_password: SecretStr | None = None

    _kafka_security: KafkaSecurity = PrivateAttr(default_factory=KafkaSecurity)

    _empty_kafka = field_validator(
        "kafka_ca_file",
        "kafka_certificate_file",
        "kafka_key_file",
        "kafka_user",
        "kafka_password",
        mode="before",
    )(unset_if_empty)

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        servers = [part.strip() for part in value.split(",") if part.strip()]
        if not servers or not all(map(_is_address, servers)):
            raise ValueError("are no addresses like kafka-1:9092,kafka-2:9092")
        return ",".join(servers)

    @model_validator(mode="after")
    def _kafka_lets_us_in(self) -> Self:
        """All clients of Kafka share one value: the files are read once."""
        password = self.kafka_password
        with named("AI_KAFKA_"):
            self._kafka_security = KafkaSecurity(
                protocol=self.kafka_security_protocol,
                ca_file=self.kafka_ca_file,
                certificate_file=self.kafka_certificate_file,
                key_file=self.kafka_key_file,
                sasl_mechanism=self.kafka_sasl_mechanism,
                user=self.kafka_user,
                password=password.get_secret_value() if password is not None else None,
            )
        return self

    @property
    def kafka_security(self) -> KafkaSecurity:
        """How every client of Kafka is let in."""
        return self._kafka_security


def _is_address(server: str) -> bool:
    """Whether it is a host, with a port or without (9092)."""
    try:
        found = urlsplit(f"//{server}")
        return bool(found.hostname) and found.port != 0 and found.netloc == server and "@" not in server
    except ValueError:
        return False
