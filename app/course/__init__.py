"""The course of one training: checked, prepared, looked over, trained into its folder, scored, reported."""
