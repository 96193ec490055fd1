"""The stage `report`: tables, figures and the page of a run."""
