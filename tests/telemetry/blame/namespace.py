"""A network namespace of one's own, in which a machine's network can be broken without anybody else noticing."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

_numbers = itertools.count()


def missing() -> str | None:
    """Return why no namespace can be made here; None where one can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "iptables", "nft"):
        if shutil.which(tool) is None:
            return f"{tool} isn't installed: sh tests/network.sh brings it"
    name = f"ra-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None


class Namespace:
    """A network of its own, with loopback, a table of hosts and a resolver's address."""

    def __init__(self) -> None:
        self.name = f"ra-blame-{os.getpid()}-{next(_numbers)}"
        self._etc = Path("/etc/netns") / self.name

    def __enter__(self) -> Namespace:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self._etc.mkdir(parents=True)
        (self._etc / "hosts").write_text("127.0.0.1 localhost\n")
        (self._etc / "resolv.conf").write_text("nameserver 127.0.0.53\noptions timeout:30 attempts:1\n")
        self.run("ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False)
        shutil.rmtree(self._etc, ignore_errors=True)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(["ip", "netns", "exec", self.name, *command], **{"text": True, "check": True} | options)
