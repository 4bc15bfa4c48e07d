"""The clinic end of the wire: ingest, opener, records, pages."""
