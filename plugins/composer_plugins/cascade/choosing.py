"""A choice of some seeds of a result."""

from __future__ import annotations

from dataclasses import replace

from composer import Result


def places_of(made: tuple[int, ...], chosen: tuple[int, ...]) -> list[int]:
    """The place of each chosen seed in a result; a seed may be chosen as often as it is there."""
    places: list[int] = []
    for seed in chosen:
        left = (i for i, other in enumerate(made) if other == seed and i not in places)
        place = next(left, None)
        if place is None:
            often = "is not" if seed not in chosen[: len(places)] else "is not so often"
            raise ValueError(f"enlarge: seed {seed} {often} in the result, which has {made}.")
        places.append(place)
    return places


def rows_of(result: Result, rows: list[int]) -> Result:
    """A result of the images at ``rows``, in that order."""
    return replace(result, x=result.x[rows], seeds=tuple(result.seeds[row] for row in rows))
