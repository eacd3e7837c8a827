"""From a recipe to a run folder, stage by stage."""
