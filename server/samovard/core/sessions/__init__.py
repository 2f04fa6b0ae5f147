"""Sessions and their turns, from a request to its record. They depend on neither gRPC nor SQL."""
