"""An API that Entra and Azure AD B2C call in the middle of a sign-in, with a database that may be slow or gone.

Entra asks for claims before it issues a token; B2C asks whether a sign-up may go on. Whatever the database does, both
get an answer in their contract's shape before they give up: the claims that were given last, or a message to try again.
Who signed up is written down in the background.

It reads its configuration from the environment; see README.md. Start it with `python api.py`.
"""

import os
import sqlite3
from pathlib import Path

import resilient_auth as ra
import uvicorn
from fastapi import FastAPI
from resilient_auth.callouts import (
    ApiConnector,
    BackgroundWrites,
    BasicCaller,
    Callout,
    Continue,
    EntraCaller,
    LastKnown,
    ShowBlockPage,
    ShowValidationError,
    TokenIssuanceStart,
    Write,
)
from resilient_auth.integrations.fastapi import mount_callout, mount_health

LATER = {
    "en": "We can't check this right now. Please try again in a minute.",
    "de": "Das lässt sich gerade nicht prüfen. Bitte versuchen Sie es in einer Minute noch einmal.",
}


class Members:
    """The members' database: SQLite here, with the waiting and failing of any other."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def _connect(self) -> sqlite3.Connection:
        # It waits a little less than whoever waits for it.
        return sqlite3.connect(f"file:{self._place}?mode=rw", uri=True, timeout=0.4)

    def tier(self, user_id: str) -> str:
        """Return a member's tier, `guest` for somebody who is none."""
        with self._connect() as db:
            found = db.execute("SELECT tier FROM members WHERE id = ?", (user_id,)).fetchone()
        return found[0] if found else "guest"

    def is_barred(self, email: str) -> bool:
        with self._connect() as db:
            return db.execute("SELECT 1 FROM barred WHERE email = ?", (email,)).fetchone() is not None

    def note_sign_up(self, write: Write) -> None:
        """Write a sign-up down; the key makes it one, however often it comes."""
        with self._connect() as db:
            db.execute("INSERT OR IGNORE INTO sign_ups VALUES (?, ?)", (write.key, write.payload["email"]))


def create_app() -> FastAPI:
    data = Path(os.environ["DATA"])
    members = Members(data / "members.db")
    store = ra.FileStore(data / "callouts.db")
    sign_ups = BackgroundWrites("sign-ups", members.note_sign_up, store=store)

    def claims_for_token(request: TokenIssuanceStart) -> Continue:
        return Continue({"tier": members.tier(request.user_id)})

    def may_sign_up(request: ApiConnector) -> Continue | ShowBlockPage:
        if members.is_barred(request.email):
            return ShowBlockPage({"en": "You can't sign up here.", "de": "Sie können sich hier nicht registrieren."})
        # In the store when this returns, and in the database when that works.
        sign_ups.put({"email": request.email}, key=request.email)
        return Continue()

    app = FastAPI()
    mount_callout(
        app,
        "/callouts/token",
        Callout(
            TokenIssuanceStart,
            claims_for_token,
            caller=EntraCaller(ra.ClaimsVerifier.for_entra(os.environ["TENANT_ID"], os.environ["AUDIENCE"])),
            # A member stays one for an hour; whoever isn't known gets in as a guest.
            default=LastKnown(otherwise=Continue({"tier": "guest"}), max_age=3600.0),
            store=store,
        ),
    )
    mount_callout(
        app,
        "/callouts/sign-up",
        Callout(
            ApiConnector,
            may_sign_up,
            caller=BasicCaller({"b2c": os.environ["B2C_PASSWORD"]}),
            # Who may be barred doesn't get in while that can't be looked up.
            default=ShowValidationError(LATER),
            deadline=2.0,
            store=store,
        ),
    )
    mount_health(app)
    return app


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
