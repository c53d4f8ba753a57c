"""The command ``meshlib``."""
