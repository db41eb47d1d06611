"""Training with Lightning: the module, its callbacks, and what starts a run."""
