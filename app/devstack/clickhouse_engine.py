"""ClickHouse's own HTTP server out of the chdb wheel, as a process: `python -m app.devstack.clickhouse_engine FOLDER`.

The folder holds `config.xml` and `users.xml`; the data goes to `data` in it. One process per folder.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, cast

# `_chdb` has the only entry that runs several statements in one server and releases the interpreter's lock. It is no
# public name: chdb-core is pinned, and a test starts this.
from chdb import _chdb

SERVE = (
    "SYSTEM START LISTEN HTTP; "
    "SELECT sleepEachRow(3) FROM system.numbers FORMAT Null "
    "SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0, max_execution_time = 0"
)


def main(folder: Path) -> None:
    """Serve until SIGTERM. Every acknowledged insert is on disk, so ending at once loses nothing."""
    os.chdir(folder)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    problem: list[str] = []

    def serve() -> None:
        try:
            cast(Any, _chdb).query(SERVE, "TabSeparated", path=str(folder / "data"))
        except Exception as error:  # noqa: BLE001 - told below, from the main thread
            problem.append(str(error))

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    while server.is_alive():
        server.join(1.0)
    sys.exit(f"the ClickHouse engine ended: {problem[0] if problem else 'its query came to an end'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
