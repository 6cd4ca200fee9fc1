"""What everybody knows: the ids, the events, and the store that remembers every message and what became of it."""
