"""The stage `cache`: one teacher's outputs for every view, computed once."""
