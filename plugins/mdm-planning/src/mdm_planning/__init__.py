"""Planning tasks: sudoku, countdown and equations, each graded by its rules."""
