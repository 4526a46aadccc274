"""Reports to settlement, from whoever knows what became of a request. Pure."""

from __future__ import annotations

from datetime import datetime

from schemas.codec import encode, event_headers
from schemas.internal import AttemptReport, Follow
from schemas.request import AdmittedRequest
from schemas.response import Response
from streams.records import Record
from streams.topology import REPORTS, Topology


def answered(admitted: AdmittedRequest, response: Response) -> AttemptReport:
    """A terminal answer without a call."""
    return AttemptReport.model_construct(
        request_id=admitted.request_id,
        workspace_id=admitted.workspace_id,
        follow=Follow.ANSWER,
        response=response,
        reply=admitted.reply,
        traceparent=admitted.traceparent,
    )


def report_record(report: AttemptReport, topology: Topology, now: datetime) -> Record:
    """The report in its request's own partition, where settlement keeps the request."""
    number = report.usage.attempt if report.usage else 0
    headers = event_headers(
        event_id=f"{report.request_id}/{number}/{report.follow}",
        event_type=report.ce_type,
        workspace_id=report.workspace_id,
        time=now,
        traceparent=report.traceparent,
    )
    home = topology.workspace_partition(report.workspace_id)
    return Record(REPORTS, report.workspace_id.encode(), encode(report), headers, home)
