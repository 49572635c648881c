"""What Linux tells of a connection that nothing came over: nothing is sent to find out."""

from __future__ import annotations

import socket
import struct
from typing import Any

__all__ = ["acknowledged", "refused_by_host", "shortest_way"]

#: Where they are in Linux's `struct tcp_info`: the segments that aren't acknowledged, those that came in, the bytes
#: that couldn't be sent, and the shortest way there and back in microseconds; and how much of it is read.
_UNACKNOWLEDGED, _SEGMENTS_IN, _NOT_SENT, _SHORTEST, _LENGTH = 24, 140, 144, 148, 152
#: States.
_ESTABLISHED, _CLOSE_WAIT = 1, 8


def acknowledged(one: Any) -> bool | None:
    """Return whether the other end has acknowledged all that was sent to it; None where that can't be told."""
    info = _tcp_info(one)
    if info is None or info[0] not in (_ESTABLISHED, _CLOSE_WAIT):
        return None
    return not any(struct.unpack_from("=I", info, at)[0] for at in (_UNACKNOWLEDGED, _NOT_SENT))


def refused_by_host(one: socket.socket) -> bool | None:
    """Return whether it was the other end that refused a connection, and not a firewall on the way (RFC 1122, 4.2.3.9).

    None where that can't be told.
    """
    info = _tcp_info(one)
    return None if info is None else bool(struct.unpack_from("=I", info, _SEGMENTS_IN)[0])


def shortest_way(one: Any) -> float | None:
    """Return the seconds that the way to the other end and back takes at best; None where that can't be told."""
    info = _tcp_info(one)
    return None if info is None else float(struct.unpack_from("=I", info, _SHORTEST)[0]) / 1e6


def _tcp_info(one: Any) -> bytes | None:
    if not hasattr(socket, "TCP_INFO") or one is None:
        return None
    try:
        info: bytes = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH)
    except (OSError, ValueError):  # closed meanwhile
        return None
    return info if len(info) == _LENGTH else None
