"""Conversations and their turns, from a request to its record. Knows neither gRPC nor SQL."""
