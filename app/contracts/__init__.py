"""What crosses a process boundary: names, messages and documents that others rely on."""
