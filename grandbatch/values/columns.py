"""The names of a bar's columns, each list once."""

TIMESTAMP = "timestamp"
"""The column that is int64, nanoseconds since 1970 UTC."""

PRICES_AND_VOLUME = ("open", "high", "low", "close", "volume")
"""The numbers that every bar has, float64."""

BAR_COLUMNS = (TIMESTAMP, "symbol", *PRICES_AND_VOLUME)
"""All columns of a bar, in their order."""
