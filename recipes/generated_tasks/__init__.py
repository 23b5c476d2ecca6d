"""How the built-in tasks were made: a grammar with hand-written word lists, no model and no text from elsewhere.

``python -m generated_tasks`` (with ``recipes`` on the path) makes the rows anew and says whether they are those of the package.
"""
