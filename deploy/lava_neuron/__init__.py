"""Lava processes of our own. Lava's compiler executes every .py file beside the file of a process, so nothing else may lie here."""
