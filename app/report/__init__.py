"""What a person reads: pages, figures and terminal tables. Everything comes in as plain values."""
