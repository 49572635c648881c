"""Run service.py through an outage of its API on this machine: it accepts requests and never answers."""

import ssl
import sys
import time

from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault
from service import Recommendations

#: Seconds.
HEALTHY, OUTAGE, RECOVERY_AT_MOST = 1.5, 5.0, 20.0
SLOWEST_PAGE = 1.5


class Visitors:
    """Load the page again and again, and note what came."""

    def __init__(self, shop: Recommendations) -> None:
        self._shop = shop
        self.slowest = 0.0
        self.failed = 0

    def load(self) -> str:
        began = time.monotonic()
        try:
            _, source = self._shop.get()
        except Exception as error:  # noqa: BLE001 - whatever it is, the page didn't come
            self.failed += 1
            source = f"failed: {type(error).__name__}"
        self.slowest = max(self.slowest, time.monotonic() - began)
        time.sleep(0.1)
        return source

    def load_for(self, seconds: float) -> list[str]:
        ends = time.monotonic() + seconds
        seen = []
        while time.monotonic() < ends:
            seen.append(self.load())
        return seen


def main() -> int:
    with Emulator() as emulator:
        app = msal.ConfidentialClientApplication(
            "shop",
            authority=emulator.authority("contoso"),
            client_credential="any will do here",
            instance_discovery=False,
            verify=emulator.ca_file,
        )

        def token(claims: str | None = None) -> dict[str, object]:
            return app.acquire_token_for_client(["api://recommendations/.default"], claims_challenge=claims)

        trust = ssl.create_default_context(cafile=emulator.ca_file)
        shop = Recommendations(emulator.api_url, token, verify=trust)
        visitors = Visitors(shop)

        before = visitors.load_for(HEALTHY)
        print(
            f"the API works:       {len(before)} pages, {before.count('fresh')} with fresh recommendations", flush=True
        )
        asked = len(emulator.ledger.calls)
        emulator.fail(Fault.black_hole(), endpoint="api")
        during = visitors.load_for(OUTAGE)
        asked = len(emulator.ledger.calls) - asked
        print(f"the API hangs:       {len(during)} pages, {during.count('fresh')} fresh, {asked} calls at the API")
        emulator.heal()
        began = time.monotonic()
        while visitors.load() != "fresh" and time.monotonic() - began < RECOVERY_AT_MOST:
            pass
        recovered = visitors.load() == "fresh"
        print(f"the API works again: fresh recommendations after {time.monotonic() - began:.1f} s")
        print(f"pages that failed: {visitors.failed}; the slowest one took {visitors.slowest:.2f} s")
        shop.close()
        app.close()
    good = not visitors.failed and visitors.slowest < SLOWEST_PAGE and recovered and len(during) > asked
    return 0 if good and before.count("fresh") == len(before) else 1


if __name__ == "__main__":
    sys.exit(main())
