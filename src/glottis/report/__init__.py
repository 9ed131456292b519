"""What a run or an evaluation looks like: figures and tables."""
