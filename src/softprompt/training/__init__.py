"""Training on a frozen backbone: settings, recipes, the loop."""
