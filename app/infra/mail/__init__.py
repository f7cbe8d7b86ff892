"""Mail to customers: how it is written (letters.py, templates/) and how it leaves (smtp.py)."""
