"""Stages, spans, metrics and log lines of calls, turns and processes."""
