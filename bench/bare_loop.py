"""The limit for any Python design: consume, call OpenAI through its SDK, produce the reply. It promises nothing.

python bench/bare_loop.py SERVERS BASE_URL REQUEST_TOPIC REPLY_TOPIC
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from openai import AsyncOpenAI, DefaultAioHttpClient

AT_ONCE = 256


async def main(servers: str, base_url: str, requests: str, replies: str) -> None:
    consumer = AIOKafkaConsumer(requests, bootstrap_servers=servers, group_id="bare", auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    client = AsyncOpenAI(api_key="instant", base_url=base_url, max_retries=0, http_client=DefaultAioHttpClient())
    slots = asyncio.Semaphore(AT_ONCE)
    running: set[asyncio.Task[None]] = set()

    async def answer(value: bytes) -> None:
        try:
            body = json.loads(value)
            done = await client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": body["prompt"]}],
                max_completion_tokens=body["max_tokens"],
            )
            reply = {"request_id": body["request_id"], "content": done.choices[0].message.content}
            await producer.send_and_wait(replies, json.dumps(reply).encode(), key=body["request_id"].encode())
        finally:
            slots.release()

    await consumer.start()
    await producer.start()
    print("ready", flush=True)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async for record in consumer:
            await slots.acquire()
            task = asyncio.create_task(answer(record.value))
            running.add(task)
            task.add_done_callback(running.discard)
    except asyncio.CancelledError:
        pass
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
