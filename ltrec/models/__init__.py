"""The network: backbones, heads, and what is done to their weights."""
