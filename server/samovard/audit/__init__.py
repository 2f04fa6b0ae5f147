"""The audit log: which calls were allowed or refused, for which caller, and how each turn ended."""
