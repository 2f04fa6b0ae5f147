"""One suite of scenarios for the clients of all languages: `python -m conformance`.

Knows the lines of `clients/conformance.md`, and no client.
"""
