"""Adapters: they fulfil the ports of `app.domain.ports` with real services."""
