"""One request and its reply with nothing but aiokafka; the answer is found by the header `correlation_id`.

python examples/python_aiokafka.py "Why is the sky blue?"
"""

import asyncio
import json
import os
import sys
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

SERVERS = os.environ.get("AI_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
REPLIES = "ai.replies"


async def main(question: str) -> None:
    consumer = AIOKafkaConsumer(REPLIES, bootstrap_servers=SERVERS, enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=SERVERS, acks="all")
    await consumer.start()
    await producer.start()
    try:
        # Before the request goes out: stand where the reply topic ends now.
        partitions = [TopicPartition(REPLIES, number) for number in consumer.partitions_for_topic(REPLIES)]
        for partition, end in (await consumer.end_offsets(partitions)).items():
            consumer.seek(partition, end)
        correlation = uuid.uuid4().hex.encode()
        request = {"workspace_id": "examples", "prompt": question, "max_tokens": 200}
        headers = [("reply_to", REPLIES.encode()), ("correlation_id", correlation)]
        await producer.send_and_wait("ai.requests", json.dumps(request).encode(), key=b"examples", headers=headers)
        print((await reply(consumer, correlation))["content"])
    finally:
        await producer.stop()
        await consumer.stop()


async def reply(consumer: AIOKafkaConsumer, correlation: bytes) -> dict:
    async for record in consumer:
        if dict(record.headers).get("correlation_id") == correlation:
            response = json.loads(record.value)
            if response["status"] != "succeeded":
                sys.exit(f"{response['status']}: {response['error']['message']}")
            return response
    raise AssertionError("a consumer does not end by itself")


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
