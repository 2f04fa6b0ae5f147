"""How long a test waits for an expected event before it fails."""

#: Seconds, far more than anything takes on a busy machine. No outcome depends on it: only how soon
#: a fault is seen.
BOUND = 120.0
