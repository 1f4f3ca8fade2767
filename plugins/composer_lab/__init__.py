"""Training and evaluation of the shipped models, and the figures."""
