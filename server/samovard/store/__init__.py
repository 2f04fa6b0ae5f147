"""Storage of everything that survives a restart."""
