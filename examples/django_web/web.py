"""Serve the project on this machine, with TLS, to try it out; see README.md."""

import logging
import os
import signal
import sys
from urllib.parse import urlsplit

import resilient_auth as ra
from django.core.wsgi import get_wsgi_application
from werkzeug.serving import make_server


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    application = get_wsgi_application()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    base = urlsplit(os.environ["BASE_URL"])
    certificate = os.environ["CERTIFICATE_FILE"], os.environ["KEY_FILE"]
    from urls import close  # which needs Django's settings

    server = make_server(str(base.hostname), base.port or 443, application, threaded=True, ssl_context=certificate)
    try:
        # What is asked for and how much of it succeeds is counted, for the status page, and alerts are events (G25).
        with ra.telemetry.watch():
            server.serve_forever()
    finally:
        close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
