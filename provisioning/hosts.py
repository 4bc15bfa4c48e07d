"""A host as people type it: the name or IP address of a broker, with nothing else in it."""

from __future__ import annotations

import ipaddress
import re

from hardware.host.errors import PlainError

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


class HostRefused(PlainError, ValueError):
    """What was typed is no host; the message says what to type."""

    exit_status = 2


def read_host(text: str) -> str:
    """`text` as a name in ASCII or an IP address, without blanks around it or the brackets of a URL.

    Raises HostRefused for a scheme, a port, a path, a zone, or anything that is neither name nor address.
    """
    host = text.strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1].strip()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _read_name(host, text)
    if "%" in host:
        raise HostRefused(f"'{text}' holds only on one network card: give an address without '%'.")
    return str(address)


def _read_name(host: str, text: str) -> str:
    if "://" in host or "/" in host:
        raise HostRefused(f"'{text}' is a URL: give the name or IP address alone, without '://' and '/'.")
    if re.search(r":\d*$", host):
        raise HostRefused(
            f"'{text}' has a port in it: give the name or IP address alone; the port has its own option."
        )
    try:
        name = host.removesuffix(".").encode("idna").decode()
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdecimal():
        raise HostRefused(
            f"'{text}' is neither a name nor an IP address: write it like broker.example or 192.0.2.7."
        )
    return name
