"""A process that takes writes until it is killed, and says so behind each; in its last life it makes what is left."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import resilient_auth as ra
from resilient_auth.callouts import BackgroundWrites, Write

if __name__ == "__main__":
    place, life = Path(sys.argv[1]), sys.argv[2]
    store = ra.FileStore(place / "writes.db")
    made = os.open(place / "made", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def make(write: Write) -> None:
        time.sleep(0.005)  # as a database takes, in which it may be killed
        os.write(made, f"{write.key}\n".encode())

    writes = BackgroundWrites("killed", make, store=store, timeout=1.0)
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
