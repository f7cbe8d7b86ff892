"""Webhooks on the wire: where they may go, and how they are sent."""
