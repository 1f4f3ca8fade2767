"""The commands of the studio by name, and a recipe."""

from composer_studio.cli import pictures, rank, recipe, sample, short, sweep, web

COMMANDS = {
    "anagram": short.anagram,
    "hybrid": short.hybrid,
    "inpaint": short.inpaint,
    "rank": rank.rank,
    "recipe": recipe.recipe,
    "replay": pictures.replay,
    "sample": sample.sample,
    "sdedit": short.sdedit,
    "show": pictures.show,
    "sweep": sweep.sweep,
    "web": web.web,
}
TEXT = """
backend = "mnist"
steps = 3
seeds = "0:5"
[plugins.anagram]
views = { identity = 6, rotate_180 = 9 }
[plugins.cfg]
scale = 4.0
"""
