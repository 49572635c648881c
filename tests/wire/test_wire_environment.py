"""What this machine says of proxies and authorities: as requests has it, or an error that names the setting."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import trustme
from requests.utils import select_proxy

from resilient_auth import errors
from resilient_auth._wire.connection import HttpxWire
from resilient_auth._wire.environment import check_proxies, proxy_for
from resilient_auth._wire.failures import as_failure
from resilient_auth.clock import SystemClock
from resilient_auth.emulator import Emulator

CLOCK = SystemClock()


def soon() -> float:
    return CLOCK.monotonic() + 5


@pytest.fixture
def wire() -> Iterator[Callable[..., HttpxWire]]:
    built: list[HttpxWire] = []

    def build(**options: Any) -> HttpxWire:
        built.append(HttpxWire(CLOCK, 2.0, **options))
        return built[-1]

    yield build
    for each in built:
        each.close()


def replace_whole(path: str, content: bytes) -> None:
    """Put another file in its place, as a package manager or a Kubernetes volume does."""
    fresh = Path(f"{path}.new")
    fresh.write_bytes(content)
    os.replace(fresh, path)


@pytest.mark.parametrize("named_by", ["verify", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_bundle_that_is_replaced_is_read_again(serve, ca_file, wire, named_by, monkeypatch):
    """The next request trusts whom the new bundle names, and no longer whom the old one did."""
    new = trustme.CA()
    old_server, new_server = serve(), serve(by=new)
    if named_by != "verify":
        monkeypatch.setenv(named_by, ca_file)
    one = wire(**({"verify": ca_file} if named_by == "verify" else {}))
    assert one.send("GET", old_server.url, ends=soon()).status_code == 200
    with pytest.raises(Exception, match="certificate"):
        one.send("GET", new_server.url, ends=soon())
    replace_whole(ca_file, new.cert_pem.bytes())
    assert one.send("GET", new_server.url, ends=soon()).status_code == 200
    with pytest.raises(Exception, match="certificate"):
        one.send("GET", old_server.url, ends=soon())


@pytest.mark.parametrize("bad", [b"", b"-----BEGIN CERTIFICATE-----\n", None], ids=["empty", "torn", "gone"])
def test_a_bundle_in_the_middle_of_its_replacement_takes_nothing_away(serve, ca_file, wire, bad, caplog):
    """Who was trusted goes on to be until there is a bundle that can be read, and the log says so once."""
    new = trustme.CA()
    old_server, new_server = serve(), serve(by=new)
    one = wire(verify=ca_file)
    if bad is None:
        os.unlink(ca_file)
    else:
        replace_whole(ca_file, bad)
    with caplog.at_level(logging.WARNING, "resilient_auth"):
        for _ in range(3):
            assert one.send("GET", old_server.url, ends=soon()).status_code == 200
    assert len([record for record in caplog.records if "CA bundle" in record.message]) == 1
    replace_whole(ca_file, new.cert_pem.bytes())
    assert one.send("GET", new_server.url, ends=soon()).status_code == 200


def test_a_request_under_way_is_not_cut_off_by_a_new_bundle(serve, ca_file, wire):
    """The connections of the old bundle are closed with the last request on them."""
    server = serve()
    one = wire(verify=ca_file)
    opened = one._enter()
    replace_whole(ca_file, Path(ca_file).read_bytes())
    assert one.send("GET", server.url, ends=soon()).status_code == 200
    client = one._client(opened, None)
    assert one._send(opened, "GET", soon(), {}, server.url, True)[0].status_code == 200
    one._leave(opened)
    assert client.is_closed


def test_many_threads_see_one_new_bundle(serve, ca_file, wire, together):
    """A bundle that is replaced while many ask does nobody harm."""
    server = serve()
    one = wire(verify=ca_file)
    content = Path(ca_file).read_bytes()

    def ask() -> int:
        replace_whole(f"{ca_file}.{threading.get_ident()}", content)
        os.replace(f"{ca_file}.{threading.get_ident()}", ca_file)
        return one.send("GET", server.url, ends=soon()).status_code

    assert set(together(16, ask)) == {200}
    assert one._open is not None
    assert one._open.users == 0


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "verify"])
@pytest.mark.parametrize("content", [None, b"no certificate", "directory"], ids=["none", "garbage", "unreadable"])
def test_a_bundle_that_cannot_be_read_is_told_at_once(wire, name, content, monkeypatch, tmp_path):
    """Before anything is asked, with the setting's name."""
    path = tmp_path / "bundle.pem"
    if content == "directory":
        path = path / "bundle.pem"
        path.parent.write_text("a file")
    elif content is not None:
        path.write_bytes(content)
    if name != "verify":
        monkeypatch.setenv(name, str(path))
    with pytest.raises(errors.ConfigurationError, match=name):
        wire(**({"verify": str(path)} if name == "verify" else {}))


def test_a_context_of_the_owners_is_not_watched(serve, ca_file, wire):
    """Who gives a context says whom to trust once and for all."""
    server = serve()
    one = wire(verify=ssl.create_default_context(cafile=ca_file))
    os.unlink(ca_file)
    assert one.send("GET", server.url, ends=soon()).status_code == 200


def of_requests(url: str, proxies: dict[str, str] | None) -> str | None:
    """The proxy that a session of requests would take, without what it puts in front of it."""
    with requests.Session() as session:
        settings = session.merge_environment_settings(url, dict(proxies or {}), None, None, None)
    return select_proxy(url, settings["proxies"])


@pytest.mark.parametrize(
    ("environment", "proxies", "url", "expected"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, None, "https://a.example/", "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, None, "https://a.example/", "http://p:1"),
        ({"https_proxy": "http://p:1"}, None, "https://a.example/", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, None, "http://a.example/", None),
        ({"ALL_PROXY": "http://p:1"}, None, "https://a.example/", "http://p:1"),
        ({"ALL_PROXY": "socks://p:1", "HTTPS_PROXY": "http://q:2"}, None, "https://a.example/", "http://q:2"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None, "https://10.1.2.3/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None, "https://11.1.2.3/", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "169.254.169.254"}, None, "https://169.254.169.254/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, None, "https://a.example/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example:8443"}, None, "https://a.example:8443/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None, "https://a.example/", None),
        ({}, {"https": "p:1"}, "https://a.example/", "http://p:1"),
        ({}, {"all": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({}, {"https://a.example": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({}, {"https://a.example": "http://p:1"}, "https://b.example/", None),
        ({"HTTPS_PROXY": "http://p:1"}, {"no_proxy": "a.example"}, "https://a.example/", None),
        ({"HTTPS_PROXY": "http://p:1"}, {"no_proxy": "a.example"}, "https://b.example/", "http://p:1"),
        ({"NO_PROXY": "a.example"}, {"https": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({}, {"https": "http://user:p%40ss@p:1"}, "https://a.example/", "http://user:p%40ss@p:1"),
    ],
)  # fmt: skip
def test_the_proxy_is_the_one_that_requests_takes(monkeypatch, environment, proxies, url, expected):
    """Whatever says it, and however it is written."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check_proxies(proxies)
    assert proxy_for(url, proxies) == expected
    theirs = of_requests(url, proxies)
    assert (expected or "").removeprefix("http://") == (theirs or "").removeprefix("http://")


def of_httpx(url: str) -> str | None:
    """The proxy that a client of httpx would take."""
    with httpx.Client() as client:
        pool: Any = client._transport_for_url(httpx.URL(url))._pool
    return None if not hasattr(pool, "_proxy_url") else str(pool._proxy_url.origin)


@pytest.mark.parametrize(
    ("excepted", "url"),
    [
        ("https://a.example", "https://a.example/"),
        ("https://a.example:8443", "https://a.example:8443/"),
        ("all://a.example", "https://a.example/"),
        ("https://*.example", "https://a.example/"),
        ("https://*example", "https://a.example/"),
        ("a.example:8443", "https://a.example:8443/"),
        ("b.example, *", "https://a.example/"),
        ("10.0.0.1:8443", "https://10.0.0.1:8443/"),
        ("https://10.0.0.1", "https://10.0.0.1/"),
        ("::1", "https://[::1]/"),
        ("A.Example", "https://a.example/"),
    ],
)
def test_what_httpx_asks_directly_is_asked_directly(monkeypatch, excepted, url):
    """In the ways that requests doesn't know, too."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    assert proxy_for(url, None) == of_httpx(url) == "http://p:1"
    monkeypatch.setenv("NO_PROXY", excepted)
    assert proxy_for(url, None) is None
    assert of_httpx(url) is None


@pytest.mark.parametrize(
    ("excepted", "url"),
    [
        ("10.0.0.0/8", "https://10.1.2.3/"),
        ("fd00::/8", "https://[fd00::1]/"),
        ("[::1]", "https://[::1]/"),
        ("[::1]:8443", "https://[::1]:8443/"),
        ("https://[::1]:8443", "https://[::1]:8443/"),
    ],
)
def test_networks_and_addresses_of_both_families_are(monkeypatch, excepted, url):
    """httpx takes no networks, and raises on IPv6's."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert proxy_for(url, None) is None


@pytest.mark.parametrize(
    ("excepted", "url"),
    [
        ("http://a.example", "https://a.example/"),
        ("https://a.example", "https://b.a.example/"),
        ("https://a.example:8443", "https://a.example/"),
        ("https://*.example", "https://example/"),
        ("https://*example", "https://anexample/"),
        ("10.0.0.1:8443", "https://10.0.0.1/"),
        ("10.0.0.0/8", "https://[fd00::1]/"),
        ("10.0.0.0/8", "https://a.example/"),
        ("https://[::1", "https://a.example/"),
        ("https://a.example:nine", "https://a.example/"),
        ("https://", "https://a.example/"),
        (" , ,", "https://a.example/"),
    ],
)
def test_nothing_else_is(monkeypatch, excepted, url):
    """What can't be read excepts nothing."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert proxy_for(url, None) == "http://p:1"


def test_a_part_of_a_name_counts_as_it_does_for_requests(monkeypatch):
    """Before its 2.34, `ample` in NO_PROXY is the end of a.example."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", "ample")
    assert proxy_for("https://a.example/", None) == of_requests("https://a.example/", None)


def test_a_proxy_that_is_given_beats_the_environments(monkeypatch):
    """As the classes here have always had it; in requests, a session's own is overridden."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    assert proxy_for("https://a.example/", {"https": "http://q:2"}) == "http://q:2"
    assert proxy_for("https://a.example/", {"https": None}) is None


@pytest.mark.parametrize(
    "bad",
    [
        "socks://u:s3cret@p:1", "socks5://u:s3cret@p:1", "ftp://u:s3cret@p:1", "http://", "http://u:s3cret@p:nine",
        "u:s3cret@p:99999999", "http://[::1", 9,
    ],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used_names_its_setting(monkeypatch, wire, bad):
    """At construction where it is given, and when it is first needed where the environment has it; never its value."""
    with pytest.raises(errors.ConfigurationError, match=r"proxies\['https'\]") as caught:
        wire(proxies={"https": bad})
    assert "s3cret" not in str(caught.value)
    if isinstance(bad, str):
        for name in ("ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, bad)
            with pytest.raises(errors.ConfigurationError, match=name):
                wire().send("GET", "https://a.example/", ends=soon())
            monkeypatch.delenv(name)


def test_proxies_that_are_no_mapping_are_refused(wire):
    """A mere URL isn't enough."""
    with pytest.raises(errors.ConfigurationError, match="proxies must be a mapping"):
        wire(proxies="http://p:1")


@pytest.mark.parametrize("given", ["argument", "HTTPS_PROXY", "ALL_PROXY"])
def test_requests_go_through_the_proxy(idp: Emulator, wire, given, monkeypatch):
    """Written without a scheme too, from the environment and from the argument."""
    bare = idp.proxy_url.removeprefix("http://").rstrip("/")
    if given != "argument":
        monkeypatch.setenv(given, bare)
    one = wire(verify=idp.ca_file, **({"proxies": {"https": bare}} if given == "argument" else {}))
    url = "https://login.microsoftonline.com/contoso/v2.0/.well-known/openid-configuration"
    assert one.send("GET", url, ends=soon()).status_code == 200


def test_hosts_that_the_environment_excepts_are_asked_directly(idp: Emulator, wire, monkeypatch):
    """A network in `NO_PROXY` is asked without the proxy, which isn't there."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.0/8")
    url = idp.authority("contoso").replace("localhost", "127.0.0.1") + "/v2.0/.well-known/openid-configuration"
    assert wire(verify=idp.ca_file).send("GET", url, ends=soon()).status_code == 200


def test_a_proxy_that_wants_a_password_is_this_machines_matter(wire):
    """407 names the setting, and says nothing of the provider."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            connection = proxy.accept()[0]
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        threading.Thread(target=refuse, daemon=True).start()
        one = wire(verify=False, proxies={"https": f"127.0.0.1:{proxy.getsockname()[1]}"})
        with pytest.raises(errors.ConfigurationError, match=r"proxies\['https'\] .* password"):
            one.send("GET", "https://a.example/", ends=soon())


def test_a_proxy_that_does_not_exist_is_this_machines_matter(wire, resolver, monkeypatch):
    """Its name isn't the provider's; one that isn't there, or doesn't answer now, is the network's."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    resolver("proxy.example", error=socket.gaierror(socket.EAI_NONAME, "told"))
    with pytest.raises(errors.ConfigurationError, match=r"HTTPS_PROXY .* exist"):
        wire().send("GET", "https://a.example/", ends=soon())
    resolver("proxy.example", error=socket.gaierror(socket.EAI_AGAIN, "told"))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is judged next
        wire().send("GET", "https://a.example/", ends=soon())
    assert type(as_failure(caught.value, "https://a.example")) is errors.NameNotResolved


def test_a_certificate_of_nobody_known_says_the_fix(serve, wire):
    """Waiting doesn't mend it; naming the authority does."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is judged next
        wire().send("GET", serve().url, ends=soon())
    failure = as_failure(caught.value, "https://a")
    assert type(failure) is errors.TLSFailed
    assert failure.heals is False
    assert "verify=<CA file>" in str(failure)
    assert "REQUESTS_CA_BUNDLE" in str(failure)


def test_a_certificate_of_another_name_says_what_it_is(serve, ca_file, wire, resolver):
    """Another authority wouldn't mend that."""
    resolver("other.example", "127.0.0.1")
    url = serve().url.replace("localhost", "other.example")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is judged next
        wire(verify=ca_file).send("GET", url, ends=soon())
    failure = as_failure(caught.value, "https://a")
    assert type(failure) is errors.TLSFailed
    assert failure.heals is False
    assert "verify=" not in str(failure)
