"""How long a test waits for what must come, before it fails."""

#: Seconds, far more than anything takes on a machine that is busy with something else. No
#: outcome depends on it: only how soon a fault is seen.
BOUND = 120.0
