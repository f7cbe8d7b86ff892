"""The sandbox providers: a payment provider and a carrier that behave, and misbehave, like real ones."""
