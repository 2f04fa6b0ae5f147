"""What operators see of the service and can do to it: snapshots, readiness and drains."""
