"""The stage `export`: the student as a folder that needs no pipeline."""
