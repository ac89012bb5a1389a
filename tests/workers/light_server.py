"""A server in miniature: takes jobs on stdin, says on stdout what it accepted, and keeps a worker alive.

light_server.py HOME LEASE_S      then lines of {"job_id", "graph"} or {"cancel": job_id}
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from atoll.jobs.sql_store import SqlJobStore
from atoll.settings import Settings
from atoll.workers.process_executor import ProcessExecutor


def main() -> None:
    logging.basicConfig(format="%(asctime)s server %(levelname)s %(message)s")
    settings = Settings(home=Path(sys.argv[1]), device="cpu", lease_s=float(sys.argv[2]))
    store = SqlJobStore(settings.store_url, lease_s=settings.lease_s)
    executor = ProcessExecutor(settings, store, nodes="light_nodes:light_registry")
    executor.start()
    print("up", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "cancel" in asked:
            store.cancel(asked["cancel"])
            print("cancelled", asked["cancel"], flush=True)
        else:
            store.submit(asked["graph"], job_id=asked["job_id"])
            print("accepted", asked["job_id"], flush=True)
        executor.wake()
    executor.stop()


if __name__ == "__main__":
    main()
