"""A job that calls an API with the application's own token."""

import os
import time

import msal
import requests


def main() -> None:
    app = msal.ConfidentialClientApplication(
        os.environ["CLIENT_ID"],
        authority=os.environ["AUTHORITY"],
        client_credential=os.environ["CLIENT_SECRET"],
    )
    for _ in range(int(os.environ.get("REQUESTS", "40"))):
        print(call_api(app), flush=True)
        time.sleep(0.5)


def call_api(app: msal.ConfidentialClientApplication) -> str:
    try:
        result = app.acquire_token_for_client([os.environ["SCOPE"]])
    except (requests.RequestException, msal.exceptions.MsalServiceError) as error:
        return f"failed, no token: {type(error).__name__}"
    if "access_token" not in result:
        return f"failed, no token: {result['error']}"
    headers = {"Authorization": f"Bearer {result['access_token']}"}
    response = requests.get(os.environ["API_URL"], headers=headers, timeout=5)
    return "served" if response.ok else f"failed, the API answered {response.status_code}"


if __name__ == "__main__":
    main()
