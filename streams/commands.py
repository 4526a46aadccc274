"""Dispatch commands as records: to which topic, lane and partition a command goes."""

from __future__ import annotations

from datetime import datetime

from schemas.codec import encode, event_headers
from schemas.internal import DispatchCommand
from streams.records import Record
from streams.topology import Topology, dispatch_topic


def dispatch_record(command: DispatchCommand, topology: Topology, now: datetime) -> Record:
    """The command on its lane's partition."""
    admitted = command.admitted
    lane = topology.lane(command.provider, admitted.workspace_id, admitted.request_id)
    headers = event_headers(
        event_id=f"{admitted.request_id}/{command.next_attempt}",
        event_type=command.ce_type,
        workspace_id=admitted.workspace_id,
        time=now,
        traceparent=admitted.traceparent,
    )
    topic = dispatch_topic(command.provider)
    return Record(topic, lane.name.encode(), encode(command), headers, lane.partition)
