"""Traces for a terminal."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from app.tracing.show import Span, Traces, decoded, tree
from tests.unit.tracing.recording import OTHER, SAMPLED, TRACE, Recorder, incoming


def spans() -> list[Span]:
    recorder = Recorder()
    with recorder.traces.processing(incoming("ai.dispatch.claude", SAMPLED)):
        recorder.traces.about("acme", "r-1", plan="start")
        with recorder.traces.waiting("claude/0"):
            pass
        recorder.traces.follows(OTHER)
        recorder.traces.buried("not_json")
    return decoded(encode_spans(recorder.spans).SerializeToString())


def test_a_span_is_read_as_it_was_exported() -> None:
    waited, stage = spans()
    assert (stage.trace, stage.kind, stage.service, stage.failed) == (TRACE, "CONSUMER", "test", True)
    assert (waited.parent, waited.kind, stage.links) == (stage.id, "INTERNAL", ("2" * 16,))
    assert stage.attributes["messaging.kafka.offset"] == 42


def test_a_trace_is_a_tree_whose_top_may_be_missing() -> None:
    first, stage, waited = tree(spans())
    assert first.startswith(f"trace {TRACE}: 2 spans, ")
    assert stage.split()[2:4] == ["process", "ai.dispatch.claude"]
    assert stage.endswith(f"test           plan=start type=not_json linked to {'2' * 16}")
    assert waited[21:].startswith("  wait claude/0")
    assert list(tree([])) == []


def test_a_trace_is_shown_once_when_no_more_of_it_comes() -> None:
    traces, (waited, stage) = Traces(quiet=7.0), spans()
    traces.take([waited], now=100.0)
    traces.take([stage], now=105.0)
    assert traces.complete(now=111.0) == []
    assert traces.complete(now=112.0) == [[waited, stage]]
    assert traces.complete(now=200.0) == []
