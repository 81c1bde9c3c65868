"""The names of the built-in tasks, for who must know them without loading torch."""

BUILT_IN = ("digits", "table", "images", "breast-cancer")
