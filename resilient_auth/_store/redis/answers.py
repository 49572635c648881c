"""What went wrong in Redis, Valkey or a client of theirs: a stable code, and what the owner can do about it."""

from __future__ import annotations

import re

from ...store import BackendFailed

__all__ = ["connection_was_lost", "failure", "is_a", "is_read_only"]

#: By the first word of the answer: a code, and the fix.
_ANSWERS = {
    "OOM": ("full", "its maxmemory is reached: raise it, or set maxmemory-policy volatile-ttl"),
    "READONLY": ("read_only", "it is a replica, on a new connection too: give the address that leads to the primary"),
    "MISCONF": ("read_only", "it can't save to its disk: see its log"),
    "NOREPLICAS": ("read_only", "fewer replicas are connected than its min-replicas-to-write asks for"),
    "NOAUTH": ("denied", "it requires a password: put it into the URL, or give it to the client"),
    "WRONGPASS": ("denied", "it doesn't know this user or password: correct the URL or the client"),
    "NOPERM": ("denied", "its ACL must allow this user get, mget, set, del, exists, getrange, evalsha, eval and scan"),
    "LOADING": ("loading", "it has just started and is loading its data: wait"),
    "MASTERDOWN": ("loading", "it is a replica that has lost its primary: give the address that leads to the primary"),
    "CLUSTERDOWN": ("cluster_down", "slots of its cluster have no node: see CLUSTER INFO"),
    "TRYAGAIN": ("cluster_down", "its cluster is moving this slot: wait"),
    "MOVED": ("cluster", "it is a node of a cluster: give redis+cluster:// or rediss+cluster://, or a cluster client"),
    "ASK": ("cluster", "it is a node of a cluster: give redis+cluster:// or rediss+cluster://, or a cluster client"),
    "CROSSSLOT": ("cluster", "something in front of the cluster ignores hash tags: give the nodes themselves"),
    "BUSY": ("busy", "a script has kept it busy for seconds: see SLOWLOG, end it with SCRIPT KILL"),
    "NOSCRIPT": ("no_script", "something in front of it sends EVALSHA and EVAL to different servers"),
}
_WORD = re.compile(rf"(?:^|[\s-])({'|'.join(_ANSWERS)})(?=[\s:])")
#: By the names of exceptions, which redis-py and valkey-py share, where the client has cut the word off; the first that
#: fits.
_EXCEPTIONS = {
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "ClusterCrossSlotError": "CROSSSLOT",
    "NoScriptError": "NOSCRIPT",
}
#: What is no answer of a server's.
_CLIENTS = {
    "AuthorizationError": "denied",
    "MaxConnectionsError": "busy",
    "TimeoutError": "timeout",
    "RedisClusterException": "cluster_down",
    "ValkeyClusterException": "cluster_down",
    "ConnectionError": "connection_failed",
}
#: How texts begin that say that no connection could be had, of the server or of the client's own pool.
_FULL = ("max number of clients reached", "No connection available", "Too many connections")


def failure(error: Exception) -> BackendFailed:
    """Return what is wrong, in words of ours: an error's text may quote hosts, users and commands."""
    kind, word = type(error).__name__, _answer(error)
    if word is not None:
        code, fix = _ANSWERS[word]
        return BackendFailed(code, f"the server answers {word}: {fix}")
    if str(error).startswith(_FULL):
        return BackendFailed("busy", f"{kind}: no connection is free, see maxclients and the client's max_connections")
    for name, code in _CLIENTS.items():
        if is_a(error, name):
            return BackendFailed(code, kind)
    return BackendFailed("connection_failed" if isinstance(error, OSError) else "failed", kind)


def connection_was_lost(error: Exception) -> bool:
    """Return whether a connection failed that had been made before: that says nothing against the server itself."""
    if _answer(error) is not None or is_a(error, "MaxConnectionsError"):
        return False
    text = str(error)
    # redis-py's and valkey-py's "Error 111 connecting to" and "Timeout connecting to": there was none.
    made = "connecting to" not in text and not text.startswith(_FULL)
    return made and (isinstance(error, OSError) or is_a(error, "ConnectionError") or is_a(error, "TimeoutError"))


def is_read_only(error: Exception) -> bool:
    """Return whether a server answered that it is a replica."""
    return _answer(error) in ("READONLY", "MASTERDOWN")


def is_a(error: Exception, name: str) -> bool:
    """Return whether an error is of a class of this name: redis-py's or valkey-py's, whichever is there."""
    return any(base.__name__ == name for base in type(error).__mro__)


def _answer(error: Exception) -> str | None:
    """Return the first word of a server's refusal."""
    for name, word in _EXCEPTIONS.items():
        if is_a(error, name):
            return word
    if isinstance(error, OSError):
        return None
    text = str(error)
    if is_a(error, "AuthenticationError"):
        return "NOAUTH" if "required" in text.lower() else "WRONGPASS"
    # A script's errors have it in their middle.
    said = _WORD.search(text)
    return None if said is None else said[1]
