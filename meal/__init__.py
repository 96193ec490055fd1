"""MEAL: distill several networks into one (Shen, He and Xue, AAAI 2019)."""
