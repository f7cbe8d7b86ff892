"""The consumer: events from PostgreSQL to the Redis streams, and what follows from them."""
