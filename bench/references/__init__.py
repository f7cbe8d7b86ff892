"""Reference programs: the least that does the same thing, made as good as it can be made."""
