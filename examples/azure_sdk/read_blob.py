"""Read a blob every half second with an Azure SDK client whose credential outlives an outage of its provider.

It reads its configuration from the environment (see README.md) and runs until its standard input ends, or Ctrl+C.
"""

import os
import sys
import threading

import resilient_auth as ra
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.storage.blob import BlobServiceClient
from resilient_auth import events, msal

SCOPE = "https://storage.azure.com/.default"
INTERVAL = 0.5  # seconds between two reads


def make_credential() -> ra.ResilientCredential:
    app = msal.ConfidentialClientApplication(
        os.environ["CLIENT_ID"],
        authority=os.environ["AUTHORITY"],
        client_credential=os.environ["CLIENT_SECRET"],
        # Refreshed ahead of need: an SDK client itself asks up to a minute after a refresh is due.
        resilience=ra.Settings(keep_fresh=((SCOPE,),)),
    )
    # Further sources would be asked while this one fails: ra.ResilientCredential(app, another_credential)
    return ra.ResilientCredential(app)


def read(client: BlobServiceClient) -> str:
    try:
        blob = client.get_blob_client(os.environ["CONTAINER"], os.environ["BLOB"])
        return f"served, {len(blob.download_blob().readall())} bytes"
    except ra.ProviderUnavailable as error:
        # Nothing valid is left to serve. The message says what happened; retry_after, when to ask again.
        return f"failed, no token: {error}"
    except ClientAuthenticationError as error:
        return f"failed, denied: {error.message}"
    except AzureError as error:
        return f"failed at the API: {type(error).__name__}"


def tell(event: events.Event) -> None:
    if isinstance(event, (events.TokenAcquired, events.RetryScheduled, events.ExchangeFailed, events.SourceSwitched)):
        print(f"  {type(event).__name__}", flush=True)


def stop_when_told(stopping: threading.Event) -> None:
    """Wait for the end of what comes in."""
    sys.stdin.read()
    stopping.set()


def main() -> int:
    ra.subscribe(tell)
    stopping = threading.Event()
    threading.Thread(target=stop_when_told, args=(stopping,), daemon=True).start()
    number = 0
    with (
        make_credential() as credential,
        BlobServiceClient(os.environ["ACCOUNT_URL"], credential=credential, retry_total=0) as client,
    ):
        while not stopping.wait(INTERVAL):
            number += 1
            print(f"read {number}: {read(client)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
