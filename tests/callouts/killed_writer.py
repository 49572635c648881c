"""A process that takes writes until it is killed, and says so behind each; in its last life it makes what is left."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import resilient_auth as ra
from resilient_auth.callouts import BackgroundWrites

if __name__ == "__main__":
    place, life = Path(sys.argv[1]), sys.argv[2]
    store = ra.FileStore(place / "writes.db")
    made = os.open(place / "made", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    writes = BackgroundWrites(
        "killed", lambda write: os.write(made, f"{write.key}\n".encode()), store=store, timeout=1.0
    )
    print("begun", flush=True)
    if life == "last":
        ends = time.monotonic() + 50.0
        while time.monotonic() < ends and list(store.scan("write-killed")):
            time.sleep(0.1)
        sys.exit()
    for number in range(100_000):
        writes.put({"life": life, "number": number}, key=f"w-{life}-{number}")
        print(f"w-{life}-{number}", flush=True)
        time.sleep(0.002)
