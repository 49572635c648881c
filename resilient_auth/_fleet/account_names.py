"""Where an application's users are found in a store: by user name, and by the tenants that have a record of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from .records import TENANTS, USERNAMES, Records
from .user_record import Change, Entry, Key, SignIn

__all__ = ["AccountNames"]


class AccountNames:
    """Note under which names an application's users are found, and find them.

    Args:
        stored: The store.
        label: Names the application.
        cloud: Names the client at the tenants between which a user's sign-in is shared; None where there are none.
    """

    def __init__(self, stored: Records, label: str, cloud: str | None) -> None:
        self._stored = stored
        self._label = label
        self._cloud = cloud

    def note(self, subject: str, accounts: Iterable[Entry], *, anew: bool, sign_in: SignIn | None) -> bool:
        """Note a user; return whether a sign-in counts: none, where it may be older than a removal in another tenant.

        Args:
            subject: The home account.
            accounts: Whose user names are to be noted.
            anew: Whether all that was noted is to live on though it is there.
            sign_in: The sign-in by which they come, if it is one.
        """
        with suppress(ValueError):  # no record can have such a name: its user is found by their home account alone
            for entry in accounts:
                if entry.get("username"):
                    self._stored.note(USERNAMES, self._username(str(entry["username"])), subject, anew=anew)
            if anew and self._cloud is not None:
                others = self._stored.note(TENANTS, f"{self._cloud} {subject}", self._label, anew=True)
                # Whoever signs in here may use that in the other tenants again.
                if sign_in is not None:
                    return self._stored.clear_removals([f"{label} {subject}" for label in others], sign_in)
        return True

    def forget(self, changes: Mapping[Key, Change]) -> None:
        """Forget the user names of the accounts that were removed."""
        for (kind, _), change in changes.items():
            entry = change.old
            if kind == "Account" and change.new is None and entry and entry.get("username"):
                with suppress(ValueError):
                    name, subject = self._username(str(entry["username"])), str(entry.get("home_account_id"))
                    self._stored.note(USERNAMES, name, subject, forget=True)

    def subjects(self, username: str) -> list[str]:
        """List the home accounts with a user name."""
        return self._stored.noted(USERNAMES, self._username(username))

    def all_subjects(self) -> Iterable[str]:
        """List the home accounts of all users, in no order."""
        return set(self._stored.all_noted(USERNAMES, f"{self._label} "))

    def other_tenants(self, subject: str) -> list[str]:
        """List the applications in other tenants that have a record of a home account."""
        if self._cloud is None:
            return []
        return [label for label in self._stored.noted(TENANTS, f"{self._cloud} {subject}") if label != self._label]

    def _username(self, username: str) -> str:
        return f"{self._label} {username.lower()}"
