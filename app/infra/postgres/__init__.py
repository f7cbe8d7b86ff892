"""PostgreSQL: the truth. One noun a file; every statement is named in `sql/`."""
