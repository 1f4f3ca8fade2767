"""Solvers: take x from one time to the next, given the model's estimate.

Every solver is written on the general path x = alpha x_0 + sigma noise, so each works for DDPM
schedules and for flows. A solver keeps no state: a multi-step rule reads ``state.estimate``, the
estimate of the step before (None after a jump).
"""

from composer.protocols import Solver
from composer.solvers.ancestral import DDIM, DDPM, Euler
from composer.solvers.diffusers import DiffusersSolver
from composer.solvers.dpm import DPMSolverPP
from composer.solvers.heun import Heun

__all__ = ["DDIM", "DDPM", "DPMSolverPP", "DiffusersSolver", "Euler", "Heun", "Solver"]
