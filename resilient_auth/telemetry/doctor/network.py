"""The way to the provider: proxies, name, connection, TLS and who is trusted for it."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

from cryptography import x509

from ..._wire.discovery import aliases_of
from ..._wire.environment import Authorities, bundle_of, proxy_for, proxy_setting
from ..._wire.network.connect import NO_SUCH_NAME
from .finding import Finding, error, note, ok, warning
from .patient import Patient, authority_of

__all__ = ["check_name", "check_port", "check_proxies", "check_tls", "check_trust"]

_METADATA: Final = "http://169.254.169.254/"
#: What a requests-based client takes in place of `verify=True`, and plain MSAL's even in place of a path.
_TRAPS: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PAIRS: Final = (("HTTPS_PROXY", "https_proxy"), ("HTTP_PROXY", "http_proxy"), ("NO_PROXY", "no_proxy"))
#: OpenSSL's X509_V_ERR_*.
_NOT_YET, _EXPIRED, _OTHER_NAMES = 9, 10, frozenset({62, 64})
_LONGEST_HEAD: Final = 65_536


def check_proxies(patient: Patient) -> Iterator[Finding]:
    """Look at the proxy through which the provider is asked, and at the traps around it."""
    for upper, lower in _PAIRS:
        first, second = patient.environ.get(upper), patient.environ.get(lower)
        if first and second and first != second:
            yield warning(
                "proxies_differ",
                f"{upper} and {lower} are both set, and differ: which one counts depends on the program",
                f"unset {upper}, or give both the same value",
            )
    if "managed_identity" in patient.setup.flows and proxy_for(_METADATA, None) is not None:
        yield error(
            "metadata_by_proxy",
            "the managed identity's endpoint 169.254.169.254 would be asked through a proxy, which can't reach it",
            "add 169.254.169.254 to NO_PROXY",
        )
    url = patient.setup.document_url
    if not url:
        return
    proxy = patient.proxy  # or ConfigurationError, which names the setting and the fix
    if proxy is None:
        yield ok(f"{_shown(patient.provider)} is asked directly, without a proxy")
        return
    yield ok(f"{_shown(patient.provider)} is asked through the proxy {_shown(patient.peer)} of {_named(url)}")


def check_name(patient: Patient) -> Iterator[Finding]:
    """Resolve the name of the provider, or of the proxy in front of it."""
    host, port = patient.peer
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except socket.gaierror as failure:
        if failure.errno in NO_SUCH_NAME:
            yield error(
                "name_unknown",
                f"there is no host of the name {host}",
                f"mend this machine's DNS: {host} is Microsoft's, and exists"
                if aliases_of(host)
                else f"correct it in {_where(patient)}, or mend this machine's DNS, if other names aren't found either",
            )
        else:
            yield error(
                "resolver_fails",
                f"this machine's resolver fails to look {host} up ({failure.strerror})",
                "mend the DNS server in /etc/resolv.conf, or the way to it; the provider is not to blame",
            )
        return
    except UnicodeError:
        yield error("name_unknown", f"{host} can't be a host's name", f"correct it in {_where(patient)}")
        return
    yield ok(f"{host} is {', '.join(sorted(map(str, found))[:4])}")


def check_port(patient: Patient) -> Iterator[Finding]:
    """Connect to the provider, or to the proxy in front of it."""
    host, port = patient.peer
    whose = "the provider" if patient.proxy is None else "the proxy"
    try:
        patient.connect(host, port).close()
    except ConnectionRefusedError:
        yield error(
            "refused",
            f"{host} refuses connections to port {port}: {whose} is down, or a firewall says no",
            f"look at {_where(patient)} and at what stands between; if those are right, wait for {whose}",
        )
    except TimeoutError:
        yield error(
            "no_answer",
            f"{host} doesn't answer at port {port}: a firewall swallows what is sent there, or {whose} is down",
            f"allow outgoing connections to {authority_of(host, port)}",
        )
    except OSError as failure:
        yield error(
            "unreachable",
            f"there is no way to {authority_of(host, port)} ({failure.strerror})",
            "mend this machine's network or routes; the provider is not to blame",
        )
    else:
        yield ok(f"{host} takes connections at port {port}")


def check_trust(patient: Patient) -> Iterator[Finding]:
    """Read the certificate authorities that are trusted, and look for the trap of `REQUESTS_CA_BUNDLE`."""
    verify = patient.setup.verify
    if verify is False:
        yield error(
            "unverified",
            "verify is false: whoever stands between can read the application's secret and its tokens",
            "remove verify; for a private authority name its file: verify = '/path/ca.pem'",
        )
        return
    path, setting = bundle_of(verify)
    context = Authorities(verify).context()  # or ConfigurationError, which names the setting and the fix
    # A directory's certificates are read when they are needed.
    if not os.path.isdir(path) and context.cert_store_stats()["x509_ca"] == 0:
        yield error(
            "no_authority",
            f"{setting or 'certifi'} names {path}, in which no certificate is an authority's",
            "put the root certificate there, and not the server's own",
        )
        return
    others = {
        name: other
        for name in _TRAPS
        if (other := patient.environ.get(name)) and os.path.realpath(other) != os.path.realpath(path)
    }
    if others:
        names = " and ".join(others)
        yield warning(
            "bundle_trap",
            f"{names} in the environment ({', '.join(sorted(set(others.values())))}), and {setting or 'certifi'} "
            f"({path}): plain MSAL, and whatever else uses requests, trusts the variable's even where it is given "
            "verify=; resilient-auth trusts the latter",
            f"unset {names}, or have all name one file",
        )
    elif setting in _TRAPS:
        yield note(
            "bundle_of_environment", f"trusts the bundle of {setting} ({path}), as every client of requests does"
        )
    else:
        yield ok(f"trusts {path}{f' of {setting}' if setting else ', which certifi brings'}")


def check_tls(patient: Patient) -> Iterator[Finding]:
    """Make a TLS connection to the provider, and say why one isn't to be trusted."""
    host, port = patient.provider
    proxy = patient.proxy
    if proxy is not None and not proxy.startswith("http://"):
        yield note("not_looked_at", "TLS through a proxy of this kind is looked at with the discovery document alone")
        return
    trust = Authorities(patient.setup.verify)
    try:
        with _tunnel(patient, proxy, host, port) as plain, _secured(plain, trust.context(), host) as secure:
            yield ok(f"{host} speaks {secure.version()}, and its certificate is trusted")
    except ssl.SSLCertVerificationError as failure:
        yield _mistrust(patient, proxy, failure)
    except TimeoutError:
        yield error(
            "tls_no_answer",
            f"{host} accepts connections and doesn't answer in TLS",
            "wait for the provider; if other clients get through, look for what inspects TLS in between",
        )
    except _ProxyRefused as failure:
        yield error("proxy_refuses", str(failure), "give the proxy in HTTPS_PROXY a user and a password that it takes, "
                    "or have it allow CONNECT to this host, or name the host in NO_PROXY")  # fmt: skip
    except OSError as failure:  # ssl.SSLError is one
        reason = getattr(failure, "reason", None) or failure.strerror or type(failure).__name__
        yield error(
            "tls_broken",
            f"the TLS handshake with {host} fails ({reason})",
            "if this began by itself, the provider fails: wait; else look for what inspects TLS in between, or for a "
            "server that is no HTTPS server",
        )


class _ProxyRefused(OSError):
    """What a proxy said to CONNECT."""


def _tunnel(patient: Patient, proxy: str | None, host: str, port: int) -> socket.socket:
    connected = patient.connect(*patient.peer)
    if proxy is None:
        return connected
    try:
        whom = authority_of(host, port)
        lines = [f"CONNECT {whom} HTTP/1.1", f"Host: {whom}"]
        parts = urlsplit(proxy)
        if parts.username:
            who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(who.encode()).decode()}")
        connected.sendall("\r\n".join((*lines, "", "")).encode())
        _expect_200(connected, whom)
    except BaseException:
        connected.close()
        raise
    return connected


def _expect_200(connected: socket.socket, whom: str) -> None:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _LONGEST_HEAD and (more := connected.recv(4096)):
        head += more
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        said = status[0].decode("ascii", "replace")[:3] if status else "nothing"
        raise _ProxyRefused(f"the proxy answers {said} where it is asked for a connection to {whom}")


def _secured(plain: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_hostname=host)


def _mistrust(patient: Patient, proxy: str | None, failure: ssl.SSLCertVerificationError) -> Finding:
    host, port = patient.provider
    if failure.verify_code in (_EXPIRED, _NOT_YET):
        return error(
            "certificate_dates",
            f"the certificate of {host} is {'over' if failure.verify_code == _EXPIRED else 'not valid yet'}",
            "set this machine's clock, if it is wrong; else the server's owner must renew it",
        )
    if failure.verify_code in _OTHER_NAMES:
        return error(
            "certificate_name",
            f"what answers at {host} shows a certificate for another name",
            f"correct the host in {_where(patient)}; if it is right, something else answers in its place",
        )
    setting = bundle_of(patient.setup.verify)[1] or "certifi"
    return error(
        "untrusted",
        f"the certificate of {host} is signed by {_issuer(patient, proxy, host, port)}, whom {setting} doesn't have "
        f"({failure.verify_message})",
        "if that is your company's TLS inspection or your own authority, name its CA file: verify = '/path/ca.pem', or "
        "REQUESTS_CA_BUNDLE; if you don't know it, somebody reads along: don't go on",
    )


def _issuer(patient: Patient, proxy: str | None, host: str, port: int) -> str:
    """Return who signed the certificate that is shown; nothing but the handshake is sent."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _tunnel(patient, proxy, host, port) as plain, _secured(plain, context, host) as secure:
            shown = secure.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(shown or b"").issuer.rfc4514_string()[:200] or "nobody"
    except (OSError, ValueError):
        return "somebody"


def _where(patient: Patient) -> str:
    url = patient.setup.document_url
    return "the authority" if patient.proxy is None else _named(url)


def _named(url: str) -> str:
    return proxy_setting(url, None)


def _shown(address: tuple[str, int]) -> str:
    return authority_of(*address)
