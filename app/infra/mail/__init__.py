"""Mail to customers: how it is written (writing.py, templates/) and how it leaves (smtp.py)."""
