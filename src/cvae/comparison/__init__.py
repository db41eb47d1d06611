"""Many runs side by side: rows, groups, a table and learning curves."""
