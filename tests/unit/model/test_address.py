"""Addresses of probes: what the check accepts, and what it refuses with which words."""

import pytest

from repeater.model.address import Address, parse_address, parse_http_url


@pytest.mark.parametrize(("text", "host", "port"), [
    ("localhost:5432", "localhost", 5432),
    (":1", "localhost", 1),
    ("127.0.0.1:65535", "127.0.0.1", 65535),
    ("[::1]:80", "::1", 80),
    ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
    ("my_host.example.:80", "my_host.example.", 80),
    ("bücher.example:80", "xn--bcher-kva.example", 80),
])  # fmt: skip
def test_an_address_is_a_host_and_a_port(text, host, port):
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize("text", [
    "127.0.0.1:80000", "localhost:0", "localhost:-1", "localhost:", "localhost", "", "5432", "a:b:80", "::1:80", "[::1]", "[::1:80",
    "::1]:80", "[]:80", "[zz]:80", "a b:80", "a\0b:80", "localhost:٨٠", "localhost:8_0", "localhost: 80", "localhost:80\n", ".:80",
    "a..b:80", "-a:80", f"{'a' * 64}:80", f"{'a.' * 127}:80", "\ud800:80", "a/b:80", "a@b:80", "localhost:999999999999999999999",
])  # fmt: skip
def test_a_wrong_address_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"^found `.*expected `host:port`"):
        parse_address(text)


@pytest.mark.parametrize(("url", "host", "port", "secure", "authority", "path"), [
    ("http://localhost", "localhost", 80, False, "localhost", "/"),
    ("https://x.example:8443/a?b=c&d=%20#part", "x.example", 8443, True, "x.example:8443", "/a?b=c&d=%20"),
    ("HTTP://localhost:8000/health", "localhost", 8000, False, "localhost:8000", "/health"),
    ("http://user:secret@localhost/", "localhost", 80, False, "localhost", "/"),
    ("http://[::1]/", "::1", 80, False, "[::1]", "/"),
    ("http://[fe80::1%eth0]:81/", "fe80::1%eth0", 81, False, "[fe80::1]:81", "/"),
    ("http://bücher.example/ä?ü", "xn--bcher-kva.example", 80, False, "xn--bcher-kva.example", "/%C3%A4?%C3%BC"),
])  # fmt: skip
def test_a_url_is_a_host_a_port_and_a_path(url, host, port, secure, authority, path):
    target = parse_http_url(url)
    assert (target.address, target.is_secure) == (Address(host, port), secure)
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize("url", [
    "http://", "http:///x", "http://:80/", "http://localhost:0/", "http://localhost:80000/", "http://localhost:٨٠/", "localhost:80",
    "ftp://localhost", "http://[::1", "http://::1/", "http://[zz]/", "http://a b/", "http://a/ b", "http://a/\r\nX: y", "http://a\0b/",
    "http://a..b/", "http://a/\ud800", "//a/", "http:a", "", "http://\u2100/", f"http://a/{'x' * 9000}",
])  # fmt: skip
def test_a_wrong_url_is_refused_by_name(url):
    with pytest.raises(ValueError, match=r"^found "):
        parse_http_url(url)
