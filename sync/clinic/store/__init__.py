"""The clinic's store: database, schema and its migrations, durable files."""
