"""The command line: `python -m meal COMMAND`. Commands import what they need when called."""
