"""One turn: its events, its streams, its bounds. Knows neither process nor session."""
