"""Tests of the CLI: whether it behaves as the service needs, and whether it starts now."""
