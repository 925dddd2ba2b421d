"""Backbones, a file per family. The table of their names is `wsol.models.BACKBONES`."""

from wsol.models.backbones.base import Backbone

__all__ = ["Backbone"]
