"""The `claude` CLI and the operating system."""
