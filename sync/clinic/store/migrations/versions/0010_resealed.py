"""Envelopes: one that its kiosk was asked to seal again keeps its row, without what was in it.

No table changes, but the version before would answer such a row as one that it has, and its kiosk would let
go of its only copy: that version is to refuse this database.
"""

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
