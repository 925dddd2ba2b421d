"""Heads, one idea a file; the table is `wsol.models.HEADS`."""

from wsol.models.heads.base import Head as Head
