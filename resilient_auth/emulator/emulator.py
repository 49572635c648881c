"""The emulator: what is commanded, and the control port by which other processes do so."""

from __future__ import annotations

from typing import Final, Self

from .commanded import Commanded
from .control import Control
from .runtime import Runtime
from .wire.messages import Site

_HIGHEST_PORT: Final = 65535


class Emulator(Commanded):
    """An identity provider, an API and managed-identity endpoints on loopback that fail on command.

    Use it as a context manager, or call `start` and `stop`. Its methods may be called from any thread; a fault
    is in force when `fail` returns. The attributes of `Settings` may be set while it runs.

    Args:
        token_lifetime: Life of access tokens in seconds, from 0.
        refresh_in: Sent as `refresh_in`, in seconds; None leaves it out.
        revocable: Give clients that declare `cp1` tokens of 20 to 28 hours, as Entra does.
        seed: Makes faults with a probability reproducible.
        port, api_port, metadata_port, proxy_port, control_port: Fixed ports; 0 takes free ones.

    Raises:
        ValueError: One of these is out of range.
    """

    def __init__(
        self,
        token_lifetime: float = 3600.0,
        refresh_in: float | None = None,
        revocable: bool = False,
        seed: int | None = None,
        *,
        port: int = 0,
        api_port: int = 0,
        metadata_port: int = 0,
        proxy_port: int = 0,
        control_port: int = 0,
    ) -> None:
        super().__init__()
        self.change({"token_lifetime": token_lifetime, "refresh_in": refresh_in, "revocable": revocable})
        given = {"port": port, "api_port": api_port, "metadata_port": metadata_port, "proxy_port": proxy_port}
        for name, number in (given | {"control_port": control_port}).items():
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _HIGHEST_PORT:
                raise ValueError(f"{name} must be a number from 0 to {_HIGHEST_PORT}, not {number!r}")
        self._ports = {
            "idp": port,
            "api": api_port,
            "metadata": metadata_port,
            "proxy": proxy_port,
            "control": control_port,
        }
        self._seed = seed

    def start(self) -> Self:
        """Start serving; return when every port answers.

        Raises:
            RuntimeError: It was started before.
            OSError: A port that was asked for is taken.
        """
        if self._runtime is not None:
            raise RuntimeError("this emulator was started before: make another one")
        control = Control(self)
        site = Site(None, control.endpoint_of, control.respond, tls=False)
        self._runtime = Runtime(self, self.ledger, site, self._ports, self._seed)
        self._runtime.start()
        return self

    def stop(self) -> None:
        """End every connection, close every port and remove the CA file; stopping twice does nothing."""
        if self._runtime is not None:
            self._runtime.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
