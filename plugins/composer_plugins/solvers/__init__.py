"""Solvers around other solvers: the times that a run visits."""
