"""Models of growing size, one after the other, under one stack of plugins."""

from composer_plugins.cascade.cascade import Cascade
from composer_plugins.cascade.stage import Stage

__all__ = ["Cascade", "Stage"]
