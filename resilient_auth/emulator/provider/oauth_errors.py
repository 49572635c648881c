"""Refusals, shaped as Entra shapes them."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from ..wire.messages import Request, Response, json_response


@dataclass(eq=False)
class Refusal(Exception):
    """An OAuth error that a request earned."""

    error: str
    code: int
    description: str
    status: int = 400
    suberror: str | None = None

    def as_response(self, request: Request) -> Response:
        """Return the answer that tells the client."""
        correlation_id = request.headers.get("client-request-id", str(uuid.uuid4()))[:100]
        trace_id = str(uuid.uuid4())
        timestamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        payload = {
            "error": self.error,
            "error_description": (
                f"AADSTS{self.code}: {self.description} "
                f"Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {timestamp}"
            ),
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"https://{request.host}/error?code={self.code}",
        }
        if self.suberror:
            payload["suberror"] = self.suberror
        return json_response(payload, self.status)
