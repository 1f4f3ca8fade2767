"""Scores that ``composer rank`` and ``--best`` choose by."""
