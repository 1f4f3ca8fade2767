"""How the shipped models were trained and measured, and the figures drawn."""
