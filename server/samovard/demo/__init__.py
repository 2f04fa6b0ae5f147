"""`samovard demo`: a real conversation on the real CLI, measured against spawning."""
