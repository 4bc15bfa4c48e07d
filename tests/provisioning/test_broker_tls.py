"""Who may connect to the broker at all."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from provisioning import certificates
from provisioning.authority import Authority
from tests.support.mosquitto import Broker, tls_context
from tests.support.mqtt import connected

Kiosk = tuple[UUID, Path]
# TLS 1.3 tells a client whose certificate is refused only after its own side of the handshake is done.
REFUSED = (ssl.SSLError, ConnectionError, TimeoutError)


def must_be_refused(broker: Broker, context: ssl.SSLContext) -> None:
    with pytest.raises(REFUSED), connected(broker, context):
        pass


def test_a_client_of_the_authority_connects_with_tls_1_3(broker: Broker, kiosk: Kiosk) -> None:
    with connected(broker, kiosk[1]) as client:
        assert client.tls_version == "TLSv1.3"


def test_a_client_without_a_certificate_is_refused(broker: Broker) -> None:
    context = ssl.create_default_context(cafile=str(broker.ingest / "ca.crt"))
    must_be_refused(broker, context)


def test_tls_1_2_is_refused(broker: Broker, kiosk: Kiosk) -> None:
    context = tls_context(kiosk[1])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    must_be_refused(broker, context)


def test_another_clinics_certificate_is_refused(broker: Broker, kiosk: Kiosk, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path / "stranger", "Another clinic")
    key = certificates.generate_tls_key()
    certificate = stranger.certify(certificates.make_request(key), kiosk[0])
    (tmp_path / "tls.crt").write_bytes(certificates.pem(certificate, stranger.issuing))
    (tmp_path / "tls.key").write_bytes(certificates.private_pem(key))
    os.link(kiosk[1] / "ca.crt", tmp_path / "ca.crt")
    must_be_refused(broker, tls_context(tmp_path))


def test_the_brokers_own_certificate_is_no_clients(broker: Broker) -> None:
    context = ssl.create_default_context(cafile=str(broker.ingest / "ca.crt"))
    context.load_cert_chain(broker.folder / "broker" / "server.crt", broker.folder / "broker" / "server.key")
    must_be_refused(broker, context)


def test_a_kiosk_cannot_pose_as_an_authority(broker: Broker, kiosk: Kiosk, tmp_path: Path) -> None:
    """A certificate that a kiosk signs with its own TLS key is worth nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    own_key = serialization.load_pem_private_key((kiosk[1] / "tls.key").read_bytes(), None)
    chain = (kiosk[1] / "tls.crt").read_bytes()
    own, issuing = x509.load_pem_x509_certificates(chain)
    key = certificates.generate_tls_key()
    forged = certificates.make_client(key.public_key(), str(uuid4()), own_key, own)  # type: ignore[arg-type]
    (tmp_path / "tls.crt").write_bytes(certificates.pem(forged, own, issuing))
    (tmp_path / "tls.key").write_bytes(certificates.private_pem(key))
    os.link(kiosk[1] / "ca.crt", tmp_path / "ca.crt")
    must_be_refused(broker, tls_context(tmp_path))


def test_a_kiosks_certificate_is_no_servers(broker: Broker, kiosk: Kiosk) -> None:
    """Whoever holds a kiosk's key cannot stand in for the broker, not even under the kiosk's own name."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(kiosk[1] / "tls.crt", kiosk[1] / "tls.key")
    client = ssl.create_default_context(cafile=str(kiosk[1] / "ca.crt"))
    client.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose|purpose"):
        handshake(client, server)


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A whole handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
