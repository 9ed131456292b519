"""Blocks that networks share: pooling, squeeze-excitation, sinc filters, graph attention."""
