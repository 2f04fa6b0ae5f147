"""The audit log: which call was allowed or refused, whose it was, and how each turn ended."""
