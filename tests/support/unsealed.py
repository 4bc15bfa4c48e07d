"""`dermakiosk` with encryption turned off: the control that shows that the search for plaintext can fail."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import kiosk_app.kept.vault
from kiosk_app.cli import main
from sync.wire.keys import OpeningPublicKey


def _in_the_clear(scan: UUID, item: str, dek: bytes, data: bytes | memoryview) -> Iterator[bytes]:
    yield bytes(data)


if __name__ == "__main__":
    OpeningPublicKey.seal = lambda self, plaintext, info: plaintext  # type: ignore[method-assign]
    kiosk_app.kept.vault.encrypt = _in_the_clear
    kiosk_app.kept.vault.decrypt = lambda scan, item, dek, data: data
    main()
