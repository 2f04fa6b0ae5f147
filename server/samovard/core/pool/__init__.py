"""The processes of all tenants and the turns that use them. It depends on turns, not sessions."""
