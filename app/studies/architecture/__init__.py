"""Study the architecture: score against cost when settings of the model are changed."""
