"""``python -m composer``: the command line, as launchers such as ``accelerate launch -m`` need."""

from composer.cli import main

main()
