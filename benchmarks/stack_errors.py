"""Error against steps of each solver under stacks of two readings: characters, guided.

``python benchmarks/stack_errors.py`` prints the root mean square distance from the end of the
stack's ODE, over all pixels and ``--seeds`` seeds. Every step takes one evaluation of the ODE.
"""

from __future__ import annotations

import argparse

from solver_errors import Fine

import composer
from composer import Sampler
from composer.protocols import Solver
from composer.solvers import DPMSolverPP, Euler
from composer_plugins import CFG, AdamsBashforth, Anagram, Components, GrayColour, Hybrid, UniPC

STEPS = 8, 12, 20
STACKS: dict[str, object] = {
    "flipped": Anagram({"identity": "mouse", "flip": "hardhat"}),
    "turned": Anagram({"identity": "mushroom", "rotate_180": "jupiter"}),
    "negative": Anagram({"identity": "panda", "negative": "cat"}),
    "gray": Components(GrayColour(), ("robot", "watermelon")),
    "from afar": Hybrid(low="rainbow", high="robot", sigma=4.0),
}
"""Those of examples/nouns.py."""
SOLVERS: dict[str, Solver] = {
    "Euler": Euler(),
    "DPMSolverPP": DPMSolverPP(),
    "UniPC(2)": UniPC(2),
    "AdamsBashforth(2)": AdamsBashforth(2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Error of each solver under guided stacks.")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--scale", type=float, default=4.0, help="of the guidance")
    options = parser.parse_args()
    backend, seeds = composer.load_backend("nouns"), range(options.seeds)
    print(f"{'':11}" + "".join(f"{title:>24}" for title in SOLVERS))
    print(f"{'steps':11}" + "".join(f"{n:8}" for _ in SOLVERS for n in STEPS))
    for name, stack in STACKS.items():
        plugins = [stack, CFG(options.scale)]
        exact = Sampler(backend, plugins, Fine(), 100).sample(seeds=seeds).x
        line = f"{name:11}"
        for solver in SOLVERS.values():
            for steps in STEPS:
                x = Sampler(backend, plugins, solver, steps).sample(seeds=seeds).x
                line += f"{float((x - exact).square().mean().sqrt()):8.4f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
