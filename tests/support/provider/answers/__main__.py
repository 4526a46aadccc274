"""The server on a port that stays, until it is interrupted: `python -m tests.support.provider.answers 8080`."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from tests.support.provider.answers.server import answering


async def serve(port: int) -> None:
    async with answering(port=port) as server:
        for name, case in server.cases.items():
            print(f"{server.base}/{name}  {case.about}")  # noqa: T201 - for whoever has started it
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1])))
