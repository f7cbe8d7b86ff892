"""The archive: months of events as files outside the database, written, verified and read."""
