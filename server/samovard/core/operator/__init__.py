"""What an operator sees of the service, and what he may do to it."""
