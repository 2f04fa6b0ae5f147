"""The processes of all tenants, and which turn has which. Knows turns, no sessions."""
