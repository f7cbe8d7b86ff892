"""Activities: one idempotent step each. They are given ports and import no driver."""
