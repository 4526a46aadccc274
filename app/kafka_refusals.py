"""Why Kafka does not let us in, in a sentence that names what to check.

aiokafka logs the reason why a broker could not be reached and raises an error without it. So the door is tried once
more, by itself: the answer tells a broker that is away from one that we do not trust, or that does not trust us.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

#: Seconds for one broker to say why.
PATIENCE = 3.0

_NOT_ALLOWED = (
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
    ClusterAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


#: What no waiting ends.
_FINAL = (ssl.SSLCertVerificationError, SaslAuthenticationFailed, UnsupportedSaslMechanismError, *_NOT_ALLOWED)
#: Seconds after which a broker that hangs up is not one that is just starting.
STARTING = 15.0


@dataclass(frozen=True)
class Closed:
    """Why we are not let in, in one sentence, and for how many seconds that may be so before it is for good."""

    reason: str
    passes_within: float = math.inf


def passes_within(error: Exception) -> float:
    """For how many seconds an error may be there before somebody must do something about it. Pure."""
    if isinstance(error, _FINAL):
        return 0.0
    hangs_up = isinstance(error, ssl.SSLError | IllegalSaslStateError | KafkaConnectionError | ConnectionResetError)
    # A plain KafkaError is aiokafka's own, for want of an answer.
    is_answer = isinstance(error, KafkaError) and type(error) is not KafkaError and not error.retriable
    return STARTING if hangs_up or is_answer else math.inf


async def why_closed(servers: str, options: Mapping[str, Any]) -> Closed:
    """What keeps us from the brokers: the word of the first that is there and refuses; else they are all away."""
    for host, port, _ in collect_hosts(servers):
        try:
            await _knock(host, port, options)
        except (OSError, KafkaError) as error:
            if (reason := closed(error, options)) is not None:
                return Closed(f"Kafka at {host}:{port} {reason}", passes_within(error))
        else:
            return Closed(f"Kafka at {servers} broke off a connection; it answers again now.")
    return Closed(f"Kafka at {servers} does not answer; is it running, and is AI_KAFKA_BOOTSTRAP_SERVERS right?")


async def _knock(host: str, port: int, options: Mapping[str, Any]) -> None:
    connection = await create_conn(host, port, request_timeout_ms=int(PATIENCE * 1000), **options)
    try:
        # A listener that wants a login lets a stranger connect, and hangs up at the first question.
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


def closed(error: Exception, options: Mapping[str, Any]) -> str | None:
    """What an attempt to connect says of the broker; None where it is just not there. Pure."""
    protocol = options.get("security_protocol", "PLAINTEXT")
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"shows a certificate that is not trusted ({error.verify_message}); AI_KAFKA_CA_FILE must hold the "
                "authority that signed it, and AI_KAFKA_BOOTSTRAP_SERVERS a name that is in it."
            )
        case SaslAuthenticationFailed():
            who = options.get("sasl_plain_username")
            return f"refuses the login of the user {who!r}; check AI_KAFKA_USER and AI_KAFKA_PASSWORD."
        case UnsupportedSaslMechanismError():
            mechanism = options.get("sasl_mechanism")
            return f"does not take {mechanism}; set AI_KAFKA_SASL_MECHANISM to a mechanism that the broker offers."
        case ssl.SSLError() | IllegalSaslStateError() | KafkaConnectionError() | ConnectionResetError():
            return (
                f"hangs up on us: AI_KAFKA_SECURITY_PROTOCOL is {protocol}; the listener at this port may want another "
                "one, or a certificate of ours (AI_KAFKA_CERTIFICATE_FILE)."
            )
        case OSError() | RequestTimedOutError():
            return None
    return f"answers with an error: {type(error).__name__}."


def refusal(servers: str, options: Mapping[str, Any], error: KafkaError) -> Closed:
    """What a broker that answers means with an error. Pure."""
    said = str(error).strip() or type(error).__name__
    if isinstance(error, _NOT_ALLOWED):
        who = options.get("sasl_plain_username")
        whom = f"the user {who!r}" if who else "this client"
        reason = f"Kafka does not allow {whom} to do this ({said}); `spillway acls` lists what each role needs."
    else:
        reason = f"Kafka at {servers} answered with an error: {said}"
    return Closed(reason, passes_within(error))
