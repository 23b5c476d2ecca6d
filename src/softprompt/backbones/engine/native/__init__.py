"""Compiled kernels for bfloat16 on CPUs; see ``library.py`` for how they are built and when they are used."""
