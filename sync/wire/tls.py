"""TLS as both ends of the wire speak it: 1.3 only, each with a certificate of the clinic's authority."""

from __future__ import annotations

import ssl
from pathlib import Path


def client_context(folder: Path) -> ssl.SSLContext:
    """What connects with tls.key and tls.crt of this folder to a server that ca.crt vouches for.

    Raises OSError where a file is missing or is not what its name says.
    """
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
