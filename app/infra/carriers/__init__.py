"""Adapters of the port `Carrier`."""
