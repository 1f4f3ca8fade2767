"""The commands train, evaluate and figures."""
