"""Network addresses of probes: parse and check. Pure text; no name is resolved.

`jobfile.build` checks an address with these functions when a job file is read; `system.net_probe` uses their result.
So a probe of a checked address cannot fail because of its form. Errors are ValueError that names the found and the
allowed value; the caller adds the position.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import quote, urlsplit

from repeater._lazy_dataclasses import dataclass
from repeater.errors import one_line

TCP_FORM = "`host:port` like `localhost:5432` or `[::1]:5432`"
URL_FORM = "a URL like `http://localhost:8000/health`"
_LONGEST_HOST = 253
_LONGEST_URL = 8000
_PORT = re.compile(r"[0-9]{1,5}")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_IN_PATH = "%/:=&?~#+!$,;'@()*[]"
"""Characters of a path or query that are not escaped. Includes `%`, because the URL is already escaped."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host to connect to, without brackets, and a port from 1 to 65535."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """The target of a URL. `authority` is the value of the header Host, `path` the request target; both are ASCII."""

    address: Address
    is_secure: bool
    authority: str
    path: str


def parse_address(text: str) -> Address:
    """The address of `host:port`, `[ipv6]:port`, or `:port` for `localhost`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"found `{_clip(text)}`, expected {TCP_FORM}")
    return Address(_host(host, TCP_FORM, text) if host else "localhost", _port(port, TCP_FORM, text))


def parse_http_url(text: str) -> HttpTarget:
    """The target of an `http` or `https` URL. Fragment, user and password are left out. Raises ValueError."""
    if len(text) > _LONGEST_URL:
        raise ValueError(f"found a URL of {len(text)} characters; the limit is {_LONGEST_URL}")
    if _BLANK.search(text):
        raise ValueError(f"found `{_clip(text)}`, which contains a space or a control character, expected {URL_FORM}")
    try:
        parts = urlsplit(text)
    except ValueError:  # brackets do not match, or do not enclose an IPv6 address
        raise ValueError(f"found `{_clip(text)}`, expected {URL_FORM}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"found `{_clip(text)}`, expected {URL_FORM}")
    is_secure = parts.scheme == "https"
    authority = parts.netloc.rpartition("@")[2]
    is_bracketed = authority.startswith("[")
    has_port = "]:" in authority if is_bracketed else ":" in authority
    host, _, port = authority.rpartition(":") if has_port else (authority, "", "")
    if not host:
        raise ValueError(f"found `{_clip(text)}`, which has no host, expected {URL_FORM}")
    number = _port(port, URL_FORM, text) if port else (443 if is_secure else 80)
    address = Address(_host(host, URL_FORM, text), number)
    shown = f"[{address.host.partition('%')[0]}]" if is_bracketed else address.host
    try:
        target = quote(parts.path or "/", safe=_IN_PATH) + (
            f"?{quote(parts.query, safe=_IN_PATH)}" if parts.query else ""
        )
    except UnicodeEncodeError:
        raise ValueError(f"found `{_clip(text)}`, which contains half of a character, expected {URL_FORM}") from None
    return HttpTarget(address, is_secure, f"{shown}:{number}" if port else shown, target)


def _host(text: str, form: str, whole: str) -> str:
    """A host without brackets: a name in the form of DNS (ASCII), or an IP address."""
    if text.startswith("[") or text.endswith("]") or ":" in text:
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else ""
        if not inner:
            raise ValueError(f"found `{_clip(whole)}`, whose IPv6 address needs brackets, expected {form}")
        try:
            IPv6Address(inner)
        except AddressValueError:
            raise ValueError(
                f"found `{_clip(whole)}`, which does not contain an IPv6 address, expected {form}"
            ) from None
        if "%" in inner and not _LABEL.fullmatch(inner.partition("%")[2]):
            raise ValueError(f"found `{_clip(whole)}`, whose zone is not valid, expected {form}")
        return inner
    try:
        host = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"found `{_clip(whole)}`, which does not contain a host name, expected {form}") from None
    if len(host) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, host.removesuffix(".").split("."))):
        raise ValueError(f"found `{_clip(whole)}`, which does not contain a host name, expected {form}")
    return host


def _port(text: str, form: str, whole: str) -> int:
    number = int(text) if _PORT.fullmatch(text) else 0
    if not 1 <= number <= 65535:
        raise ValueError(f"found `{_clip(whole)}`, whose port is not a number from 1 to 65535, expected {form}")
    return number


def _clip(text: str) -> str:
    line = one_line(text[:200])
    return line if len(line) <= 60 else line[:57] + "..."
