"""Solvers beyond those of the core, the times that a run visits, and likelihoods by the flow."""
