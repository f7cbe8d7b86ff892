"""Adapters of the port `Payments`."""
