"""The credential broker: a reverse proxy between agents and the model's API.

An agent is given the broker's address and a placeholder; the credential is put in here. Knows HTTP,
tenants' credentials and the API's paths. Knows nothing of sessions, turns or how agents are run.
"""
