"""X.509 certificates of the clinic: a root, one issuing authority below it, short-lived leaves below that."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hardware.host.errors import PlainError
from provisioning import files

RootKey = ed25519.Ed25519PrivateKey
# Issuing and TLS keys are P-256, which TPM 2.0 and secure elements can hold; they have no Ed25519.
TlsKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

ROOT_LIFE = timedelta(days=3653)
# Longer than two leaves live one after the other: who renews it each year shortens none of them.
ISSUING_LIFE = timedelta(days=731)
LEAF_LIFE = timedelta(days=360)
# A certificate is valid a little before it was made: a kiosk that just booted may be slow.
CLOCK_SKEW = timedelta(minutes=10)
# More than a chain of ours has.
_CHAIN_BYTES = 2**16


class CertificateRefused(PlainError):
    """A certificate that must not be made."""

    exit_status = 2


def generate_tls_key() -> TlsKey:
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: TlsKey) -> bytes:
    """The key as unencrypted PKCS #8; its protection is the file's mode and where the file is."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_private(data: bytes) -> TlsKey:
    """The key in `private_pem`'s text."""
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise CertificateRefused("This is not a private key in PKCS #8: restore it.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateRefused("This key file does not hold a P-256 key: restore it.")
    return key


def holder(path: Path) -> str:
    """The common name in the first certificate of a PEM file."""
    try:
        certificate = x509.load_pem_x509_certificate(files.read(path, _CHAIN_BYTES) or b"")
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise CertificateRefused(f"{path} is no certificate of ours: remove or restore it.") from error
    return str(name.value)


def pem(*certificates: x509.Certificate) -> bytes:
    """A chain in the order given: the leaf first, as TLS sends it."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def make_root(key: RootKey, clinic: str) -> x509.Certificate:
    name = _name(clinic, "clinic root")
    now = datetime.now(timezone.utc)
    builder = _builder(name, name, key.public_key(), now, now + ROOT_LIFE)
    builder = _authority_extensions(builder, path_length=1)
    return builder.sign(key, None)


def make_issuing(
    key: ec.EllipticCurvePublicKey, clinic: str, root_key: RootKey, root: x509.Certificate
) -> x509.Certificate:
    """A certificate of the issuing authority; it ends with the root's at the latest."""
    now = datetime.now(timezone.utc)
    if now >= root.not_valid_after_utc:
        raise CertificateRefused(
            f"The clinic's root certificate ended on {root.not_valid_after_utc.date()}: "
            "make a new authority, and enrol the kiosks under it."
        )
    until = min(now + ISSUING_LIFE, root.not_valid_after_utc)
    builder = _builder(root.subject, _name(clinic, "clinic issuing"), key, now, until)
    builder = _authority_extensions(builder, path_length=0)
    return builder.add_extension(_issuer_identifier(root), critical=False).sign(root_key, None)


def make_server(
    key: ec.EllipticCurvePublicKey, hosts: Sequence[str], issuing_key: TlsKey, issuing: x509.Certificate
) -> x509.Certificate:
    """A server certificate for `hosts`, names or addresses; it cannot be used as a client's."""
    if not hosts:
        raise CertificateRefused("A server certificate needs at least one host: give --host.")
    builder = _leaf(key, f"broker {hosts[0]}"[:64], ExtendedKeyUsageOID.SERVER_AUTH, issuing)
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    return builder.add_extension(names, critical=False).sign(issuing_key, hashes.SHA256())


def make_client(
    key: ec.EllipticCurvePublicKey, common_name: str, issuing_key: TlsKey, issuing: x509.Certificate
) -> x509.Certificate:
    """A client certificate whose CN is the name that the broker knows this client by."""
    builder = _leaf(key, common_name, ExtendedKeyUsageOID.CLIENT_AUTH, issuing)
    return builder.sign(issuing_key, hashes.SHA256())


def make_request(key: TlsKey) -> bytes:
    """A signing request (DER) without a name: a name is what the authority gives, never what it is told."""
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request, once it has shown that it holds the private one."""
    try:
        parsed = x509.load_der_x509_csr(request)
        possessed = parsed.is_signature_valid
        key = parsed.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateRefused(f"The signing request cannot be read ({error}): make a new one.") from error
    if not possessed:
        raise CertificateRefused("The signing request is not signed with its own key: make a new one.")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRefused("The signing request's key is not P-256: make a new one.")
    return key


def _builder(
    issuer: x509.Name, subject: x509.Name, key: PublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _leaf(
    key: ec.EllipticCurvePublicKey, common_name: str, usage: x509.ObjectIdentifier, issuing: x509.Certificate
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    if now >= issuing.not_valid_after_utc:
        raise CertificateRefused(
            f"The clinic's issuing certificate ended on {issuing.not_valid_after_utc.date()}: "
            "run 'dermakiosk provision renew-issuer' first."
        )
    clinic = issuing.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
    until = min(now + LEAF_LIFE, issuing.not_valid_after_utc)
    builder = _builder(issuing.subject, _name(str(clinic), common_name), key, now, until)
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_issuer_identifier(issuing), critical=False)
    )


def _authority_extensions(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return builder.add_extension(constraints, critical=True).add_extension(
        _key_usage(key_cert_sign=True, crl_sign=True), critical=True
    )


def _key_usage(
    digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _name(clinic: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, clinic),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
