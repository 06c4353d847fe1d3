"""From dirty users to lists: states enter, ranked lists leave to the topic and to Redis."""
