"""
Evaluation: a log in; lists made by the live path and by baselines, and what they are worth, out.

Runs in virtual time without Kafka or Redis.
"""
