"""What looks like a secret is redacted whole, whoever has cut the text before."""

from __future__ import annotations

import pytest

from resilient_auth._wire.redaction import redact

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2VjcmV0c2VjcmV0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Bearer {JWT} was refused", "Bearer [redacted] was refused"),
        (f"a%3D{JWT}", "a%3D[redacted]"),
        (JWT[:16], "[redacted]"),
        (JWT[:40] + " and on", "[redacted] and on"),
        ('{"client_secret": "hush", "a": 1}', '{"client_secret": [redacted], "a": 1}'),
        ('{"client_secret": "hush', '{"client_secret": [redacted]'),
        (r'{"password": "hu\"sh sh", "a": 1}', '{"password": [redacted], "a": 1}'),
        ("{'refresh_token': b'hush hush", "{'refresh_token': [redacted]"),
        ("secret = 'hush\\' hush' end", "secret = [redacted] end"),
        ("code=hush&state=s", "code=[redacted]&state=s"),
        ("the code is 7", "the code is 7"),
    ],
)
def test_a_secret_is_redacted(text: str, shown: str) -> None:
    """To its end, and nothing beside it."""
    assert redact(text) == shown
