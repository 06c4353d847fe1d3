"""The maths: pure functions and small classes on arrays. Knows no Kafka, no Redis, no clock and no settings."""
