"""Tenants, sessions, turns and leases: no I/O, no gRPC, no `claude`."""
