"""One turn: its events, streams and limits. It does not depend on processes or sessions."""
