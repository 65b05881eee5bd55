"""What is predicted, the group `task`: one object per task owns all that differs between them."""
