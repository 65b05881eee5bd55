"""Write pages, figures and tables of runs, comparisons, studies and audits, in HTML and in the terminal."""
