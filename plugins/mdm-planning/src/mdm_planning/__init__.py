"""Planning tasks: sudoku, countdown, equations and judgment, each graded by its rules."""
