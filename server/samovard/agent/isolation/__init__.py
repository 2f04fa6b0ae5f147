"""The walls around agents: what they see, what holds them, and the proof that it does."""
