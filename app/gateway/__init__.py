"""The gateway: HTTP in, decisions of the domain out. Litestar routes, Granian serves."""
