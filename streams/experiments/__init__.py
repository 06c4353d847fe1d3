"""Experiments: definitions enter from a file or a topic, the variant of each user leaves."""
