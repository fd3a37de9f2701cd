"""How well the variants do, and how that is shown."""
