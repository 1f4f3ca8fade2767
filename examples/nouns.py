"""Characters in colour: anagrams, hybrids, another head on a body, a drawing come to life."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw

import composer
from composer.contact_sheet import contact_sheet
from composer.images import to_tensor
from composer_plugins import CFG, Anagram, Components, GrayColour, Hybrid, Inpaint, SDEdit
from composer_plugins.backends.nouns import compose, head_names
from composer_plugins.filters import GaussianBlur
from composer_plugins.transforms import Flip, Negative, Rotate180

TWO_IN_ONE = {
    "flipped": (Anagram({"identity": "mouse", "flip": "hardhat"}), Flip()),
    "turned": (Anagram({"identity": "mushroom", "rotate_180": "jupiter"}), Rotate180()),
    "negative": (Anagram({"identity": "panda", "negative": "cat"}), Negative()),
    "gray": (Components(GrayColour(), ("robot", "watermelon")), GrayColour().parts[0]),
    "from afar": (Hybrid(low="rainbow", high="robot", sigma=4.0), GaussianBlur(6.0)),
}  # how to look a second time: (heads, that look)


def drawing() -> Image.Image:
    """A pumpkin with glasses, as a child might draw it."""
    image = Image.new("RGB", (32, 32), (225, 215, 213))
    draw = ImageDraw.Draw(image)
    draw.rectangle((9, 21, 21, 31), (60, 90, 200))
    draw.ellipse((5, 3, 26, 22), (240, 120, 20))
    for left in (9, 17):
        draw.rectangle((left, 11, left + 5, 16), (255, 255, 255), (20, 20, 20))
    return image


def main(out: Path, seeds: int = 3, steps: int = 12) -> Path:
    backend, rows = composer.load_backend("nouns"), {}

    def sampler(*plugins: object) -> composer.Sampler:
        return composer.Sampler(backend, [*plugins, CFG(4.0)], num_inference_steps=steps)

    for name, (stack, look) in TWO_IN_ONE.items():
        x = sampler(stack).sample(seeds=range(seeds)).x
        rows[f"{' / '.join(stack.conditions)}, {name}"] = torch.cat([x, look(x)])
    noun = compose((0, 3, 20, head_names().index("robot"), 5))[None] / 127.5 - 1
    mask = torch.zeros(32, 32)
    mask[:21] = 1  # the head is made anew, the body kept
    heads = [sampler(Inpaint(noun, mask)).sample(head, [0]).x for head in ("shark", "panda")]
    rows["other heads on this body"] = torch.cat([noun, *heads])
    x = sampler(SDEdit(drawing(), strength=0.6)).sample("pumpkin", range(seeds)).x
    rows["a drawing come to life"] = torch.cat([to_tensor(drawing()), x])
    contact_sheet(rows).save(out / "nouns.png")
    states = sampler().stream("shark", range(seeds))
    frames = [contact_sheet({"x": s.x, "x_0 as seen then": s.estimate.x0}) for s in states]
    frames[0].save(out / "nouns.gif", save_all=True, append_images=frames[1:], duration=200, loop=0)
    return out / "nouns.png"


if __name__ == "__main__":
    print(main(Path()))
