"""One answer, one stream, and one request whose answer is fetched later, through the Python client.

python examples/python_client.py "Why is the sky blue?"
"""

import asyncio
import os
import sys

from app.client import SpillwayClient, SpillwayError

SERVERS = os.environ.get("AI_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")


async def main(question: str) -> None:
    async with SpillwayClient(bootstrap_servers=SERVERS, workspace_id="examples", timeout=60) as client:
        response = await client.complete(question, max_tokens=200)
        print(response.content)
        print(f"{response.provider} {response.model}: {response.usage.cost} dollars")

        async with client.stream(question, max_tokens=200) as answer:
            async for piece in answer:
                print("(from the beginning)" if piece.restarted else "", piece.content, sep="", end="", flush=True)
        print(f"\n{answer.response.usage.total_tokens} tokens")

        request_id = await client.publish(question, priority="batch")
        print((await client.result(request_id, timeout=60)).content)


try:
    asyncio.run(main(sys.argv[1]))
except SpillwayError as error:
    sys.exit(f"{error.code or type(error).__name__}: {error}")
