"""Exact backends for tests: models whose answers are known in closed form."""

from composer.testing.gaussian_mixture import GaussianMixtureBackend
from composer.testing.identity import IdentityBackend

__all__ = ["GaussianMixtureBackend", "IdentityBackend"]
