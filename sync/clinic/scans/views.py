"""The clinic's pages: list of scans, one scan."""

from __future__ import annotations

from datetime import datetime, timezone
from uuid import UUID

from flask import Blueprint, abort, current_app, g, jsonify, render_template, request
from sqlalchemy import text

from sync.clinic.audit.log import note
from sync.clinic.receiving.silence import silence
from sync.clinic.scans.records import Place, scan_page, scan_record, withdrawn
from sync.clinic.scans.scan_view import ScanView
from sync.clinic.store.database import Database
from sync.clinic.web.sign_in_pages import Page, signed_in

pages = Blueprint("pages", __name__)


def _database() -> Database:
    database: Database = current_app.config["DATABASE"]
    return database


@pages.get("/")
@signed_in
def scans() -> Page:
    reference, after = request.args.get("reference", "").strip()[:128], _place()
    with _database().reading() as records:
        page = scan_page(records, reference or None, after)
        silent = silence(records)
    return render_template("scans.html", page=page, reference=reference, after=after, silence=silent)


@pages.get("/scans/<uuid:scan>")
@signed_in
def scan(scan: UUID) -> Page:
    with _database().reading() as records:
        record = scan_record(records, scan)
        withdrawal = withdrawn(records, scan) if record is None else None
    if record is None:
        if withdrawal is None:
            abort(404)
        return render_template("withdrawn.html", withdrawal=withdrawal), 410
    # By itself, since whoever writes to SQLite waits for whoever else does, and nobody to read.
    with _database().writing() as records:
        note(records, g.account, "scan_read", scan)
    return render_template("scan.html", record=record, view=ScanView(record, request.args.get("measure")))


@pages.get("/healthz")
def healthz() -> Page:
    with _database().reading() as records:
        records.execute(text("SELECT 1"))
    return jsonify(ok=True)


def _place() -> Place | None:
    """Where the page that is asked for begins; the newest one where the address does not say."""
    try:
        after = UUID(request.args.get("after", ""))
        at = datetime.fromisoformat(request.args.get("at", "")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return Place(at, after)
