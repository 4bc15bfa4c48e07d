"""Which `Host` a request may name; a page elsewhere that points its own name at us gets no answer."""

from __future__ import annotations

from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def host_name(header: str) -> str | None:
    """The name or address in a `Host` header, in lower case, without port or brackets; or None."""
    try:
        parts = urlsplit(f"//{header}")
        return parts.hostname if parts.netloc == header and parts.username is None else None
    except ValueError:
        return None
