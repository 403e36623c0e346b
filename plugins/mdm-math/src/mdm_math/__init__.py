"""Math tasks for mdm: GSM8K and MATH-500."""
