"""Guidance: plugins that set how strongly the model follows a condition."""
