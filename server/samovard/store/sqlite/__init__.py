"""What is SQLite's own: its files, its log, its pragmas, and copies of a store."""
