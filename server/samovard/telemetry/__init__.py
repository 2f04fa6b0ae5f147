"""Stages of a turn: one call makes a timing and a log line."""
