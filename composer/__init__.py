"""Composer: one diffusion sampling loop whose hooks stack plugins over any model."""

from composer.batch import Batch, Output
from composer.errors import NonFiniteError, UnknownNameError
from composer.loading import load_backend
from composer.markers import hookimpl
from composer.offers import Register
from composer.plugin import Plugin
from composer.protocols import Backend, Stack, State
from composer.recipes import call_of
from composer.registry import Registry, get_transform, installed
from composer.requests import UNCONDITIONAL, Each, Estimate, Request
from composer.result import Result
from composer.sampler import Sampler
from composer.stats import Stats
from composer.transforms import Transform
from composer.wrapped import wrap

__version__ = "0.2.0"

__all__ = [
    "UNCONDITIONAL",
    "Backend",
    "Batch",
    "Each",
    "Estimate",
    "NonFiniteError",
    "Output",
    "Plugin",
    "Register",
    "Registry",
    "Request",
    "Result",
    "Sampler",
    "Stack",
    "State",
    "Stats",
    "Transform",
    "UnknownNameError",
    "call_of",
    "get_transform",
    "hookimpl",
    "installed",
    "load_backend",
    "wrap",
]
