"""Pages that open in any browser without a network: one file each, with nothing from elsewhere."""
