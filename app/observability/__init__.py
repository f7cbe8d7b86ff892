"""Logs, metrics and health: how an operator sees what a process is doing."""
