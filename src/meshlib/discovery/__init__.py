"""Where endpoints come from: sources, what is believed of them, and this process's own entry in a registry."""
