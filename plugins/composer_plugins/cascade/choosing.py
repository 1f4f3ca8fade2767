"""Some seeds of a result, to go on with."""

from __future__ import annotations

from dataclasses import replace

from composer import Result


def places_of(made: tuple[int, ...], chosen: tuple[int, ...]) -> list[int]:
    """Where each chosen seed is among those of a result; one that is there twice may be twice."""
    places: list[int] = []
    for seed in chosen:
        left = (i for i, other in enumerate(made) if other == seed and i not in places)
        place = next(left, None)
        if place is None:
            often = "is not" if seed not in chosen[: len(places)] else "is not so often"
            raise ValueError(f"enlarge: seed {seed} {often} in the result, which has {made}")
        places.append(place)
    return places


def rows_of(result: Result, rows: list[int]) -> Result:
    """Some images of a result, in an order."""
    return replace(result, x=result.x[rows], seeds=tuple(result.seeds[row] for row in rows))
