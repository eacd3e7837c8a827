"""Recipe to run folder, stage by stage."""
