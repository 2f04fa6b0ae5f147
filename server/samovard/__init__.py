"""Samovar: a gRPC service that keeps `claude` processes warm."""

__version__ = "0.1.0"
