"""`spillway tail`: the last records of a topic, readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka import AIOKafkaConsumer, ConsumerRecord

    from app.settings import Settings


def tail(
    topic: Annotated[str, typer.Argument(help="A topic, or its short name: requests, responses, usage, alerts, …")],
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="So many of the last records.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per record and line.")] = False,
) -> None:
    """Show the last records of a topic: time, place, key, headers and value.

    Short names are the topics without `ai.`, also `alerts`, and a provider's name for its dispatch topic. Examples:

      spillway tail responses -n 3
      spillway tail dead-letters --follow
      spillway tail usage -n 1000 --json | jq -r .value.cost
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands

    settings = command_settings()
    run(_tail(settings, topic, number, follow=follow, as_json=as_json))


async def _tail(settings: Settings, topic: str, number: int, *, follow: bool, as_json: bool) -> None:
    from app.cli.output import print_line  # noqa: PLC0415
    from app.cli.records import as_line, as_text, full_name  # noqa: PLC0415
    from app.cli.wire import consuming, poll  # noqa: PLC0415
    from app.kafka import cluster_of  # noqa: PLC0415
    from app.topics import build_topology  # noqa: PLC0415

    name = full_name(topic, build_topology(settings))
    shown = as_line if as_json else as_text
    async with consuming(cluster_of(settings), name) as consumer:
        for record in await _last(consumer, name, number):
            print_line(shown(record))
        while follow:
            for record in await poll(consumer):
                print_line(shown(record))


async def _last(consumer: AIOKafkaConsumer, topic: str, number: int) -> list[ConsumerRecord]:
    """The last records over all partitions, oldest first; the consumer then stands behind them.

    Raises KafkaUnavailableError when the broker does not bring them.
    """
    from app.cli.wire import poll  # noqa: PLC0415
    from app.kafka import Ending  # noqa: PLC0415

    partitions = list(consumer.assignment())
    ends: Mapping[object, int] = await consumer.end_offsets(partitions)
    starts: Mapping[object, int] = await consumer.beginning_offsets(partitions)
    for partition in partitions:
        consumer.seek(partition, max(starts[partition], ends[partition] - number))
    found: list[ConsumerRecord] = []
    ending = Ending(consumer, topic)
    while left := [place for place in partitions if await consumer.position(place) < ends[place]]:
        if ending.is_here(left):
            break
        batch = await poll(consumer)
        found += batch
        if batch:
            ending.heard(left)
    found.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
    return found[-number:] if number else []
