"""Math tasks: GSM8K and MATH-500, graded by meaning and by the published rules."""
