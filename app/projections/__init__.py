"""The projections: what is kept up to date from events, by consumers as they happen and by a replay again."""
