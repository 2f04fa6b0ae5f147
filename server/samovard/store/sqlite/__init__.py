"""The parts that are specific to SQLite: its files, its log, its pragmas, and copies of a store."""
