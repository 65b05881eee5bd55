"""Study how scores grow with the number of training subjects."""
