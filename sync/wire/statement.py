"""Signed statements: a small public fact as JSON inside a COSE_Sign1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from sync.wire import cose
from sync.wire.document import FieldTwice, read_document
from sync.wire.errors import PlainError
from sync.wire.keys import signing_kid

MAX_STATEMENT = 128 * 1024


class StatementError(PlainError, ValueError):
    """A statement that was not signed by the key it needs, or does not say what it must."""

    exit_status = 2


class Statement(BaseModel):
    """What is signed; bytes are hexadecimal in the JSON."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        ser_json_bytes="hex",
        val_json_bytes="hex",
        hide_input_in_errors=True,
    )


S = TypeVar("S", bound=Statement)


def sign_statement(statement: Statement, typ: str, key: Ed25519PrivateKey) -> bytes:
    """The COSE_Sign1 of a statement."""
    header = cose.encode_header(typ, signing_kid(key))
    return cose.sign(header, statement.model_dump_json().encode(), key)


def verify_statement(
    data: bytes, typ: str, model: type[S], find_key: Callable[[bytes], Ed25519PublicKey | None]
) -> S:
    """The statement in `data`, if the key that `find_key` gives for its key id signed it.

    Raises StatementError.
    """
    if len(data) > MAX_STATEMENT:
        raise StatementError(f"The {typ} has {len(data)} bytes; {MAX_STATEMENT} are permitted.")
    try:
        parsed = cose.parse(data, typ)
        key = find_key(parsed.kid)
        if key is None:
            raise StatementError(f"The {typ} is signed with a key that is not known here.")
        cose.check_signature(parsed, key)
        return read_document(model, parsed.payload)
    except cose.CoseError as error:
        raise StatementError(f"The {typ} is refused: {error}") from error
    except (FieldTwice, ValidationError) as error:
        raise StatementError(f"The {typ} does not say what it must.") from error
