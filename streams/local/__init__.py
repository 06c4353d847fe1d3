"""The one-machine Kafka and Redis, and the processes around them."""
