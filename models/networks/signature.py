"""The clinic's signature of the manifest: an enrolled kiosk runs only networks that its clinic signed for.

The signature is Ed25519 over CONTEXT and the manifest's bytes. It lies in the kiosk's state, beside the
public half of the clinic's manifest key: the manifest itself comes with the software, the same for all.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hardware.host.durable import write_whole
from hardware.host.errors import PlainError
from hardware.host.regular_file import read_regular_file, read_regular_text
from models.networks.manifest import ModelsError, manifest_bytes

CONTEXT = b"dermakiosk-models-manifest\0"
PUBLIC_KEY = "clinic-manifest.pub"
SIGNATURE = "models.sig"
# What enrolment writes last: a folder with it is a kiosk's, and a kiosk needs a signature.
ENROLLED = "identity.json"


class SigningRefused(PlainError, ValueError):
    """The manifest cannot be signed with what was given."""

    exit_status = 2


def sign_manifest(key_file: Path, state: Path) -> Path:
    """Sign the manifest for the kiosk in `state` with the key in `key_file` (PKCS #8 PEM); the file written.

    Raises SigningRefused if there is no such key, or `state` belongs to another clinic.
    """
    try:
        key = serialization.load_pem_private_key(read_regular_file(key_file), None)
    except OSError as error:
        raise SigningRefused(
            f"{key_file} cannot be read ({error.strerror}). Name the manifest key."
        ) from error
    except (ValueError, TypeError):
        # What the library says may quote the file, and a piece of a key must not end in a traceback.
        raise SigningRefused(f"{key_file} holds no key in PKCS #8. Name the manifest key.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningRefused(f"{key_file} holds no Ed25519 key. Name the manifest key.")
    if not _is_a_kiosks(state):
        raise SigningRefused(
            f"{state} is no enrolled kiosk's state: name one, or run 'dermakiosk provision enrol' first."
        )
    if _public_key(state) != key.public_key().public_bytes_raw():
        raise SigningRefused(
            f"{key_file} is not the manifest key of the clinic that {state} belongs to: name that one."
        )
    path = state / SIGNATURE
    if path.exists() and path.samefile(key_file):
        raise SigningRefused(
            f"{key_file} is the key itself, where its signature is to be: give the key a name elsewhere."
        )
    try:
        write_whole(path, key.sign(CONTEXT + manifest_bytes()).hex() + "\n", 0o644)
    except OSError as error:
        raise SigningRefused(
            f"{path} cannot be written ({error.strerror}). Name a folder that you own."
        ) from error
    return path


def check_signature(state: Path | None) -> str:
    """Whether the clinic of the kiosk in `state` signed the manifest: "signed", or "unsigned" without one.

    Raises ModelsError if `state` is an enrolled kiosk's and the signature is absent, damaged, another key's.
    """
    if state is None or not _is_a_kiosks(state):
        return "unsigned"
    public = Ed25519PublicKey.from_public_bytes(_public_key(state))
    path = state / SIGNATURE
    try:
        signature = bytes.fromhex(read_regular_text(path))
    except FileNotFoundError as error:
        raise ModelsError(f"The clinic has not signed the manifest for this kiosk. {_sign(state)}") from error
    except (OSError, ValueError) as error:
        raise ModelsError(f"{path} cannot be read as a signature. {_sign(state)}") from error
    try:
        public.verify(signature, CONTEXT + manifest_bytes())
    except InvalidSignature as error:
        raise ModelsError(
            "The manifest of the networks is not the one that this kiosk's clinic signed, so none is loaded. "
            f"Find out who changed it; if it came with an update: {_sign(state)}"
        ) from error
    return "signed"


def _is_a_kiosks(state: Path) -> bool:
    return (state / ENROLLED).exists() or (state / PUBLIC_KEY).exists()


def _public_key(state: Path) -> bytes:
    path = state / PUBLIC_KEY
    try:
        data = bytes.fromhex(read_regular_text(path))
    except (OSError, ValueError) as error:
        raise ModelsError(
            f"{path}, the clinic's key for manifests, is absent or damaged. Enrol the kiosk again."
        ) from error
    if len(data) != 32:
        raise ModelsError(f"{path} does not hold a public key of 32 bytes. Enrol the kiosk again.")
    return data


def _sign(state: Path) -> str:
    return f"Run 'dermakiosk models sign --key AUTHORITY/manifest.key --state {state}'."
