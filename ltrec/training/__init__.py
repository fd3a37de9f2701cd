"""How the representation is learnt."""
