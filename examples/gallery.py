"""Make every example's picture: python examples/gallery.py FOLDER (``make demo``)."""

import sys
import time
from pathlib import Path

import anagrams
import animation
import components
import crowd
import hybrids
import inpainting
import nouns
import panoramas
import sdedit
import stacked


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    examples = (
        anagrams,
        animation,
        components,
        crowd,
        hybrids,
        inpainting,
        nouns,
        panoramas,
        sdedit,
        stacked,
    )
    for example in examples:
        print(f"  {example.main(out).resolve()}")
    print(f"The gallery is in {out.resolve()} ({time.perf_counter() - began:.0f} s).")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gallery"))
