"""Benchmarks of the service beside what a user would run instead."""
