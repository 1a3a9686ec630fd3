"""Critics: measured signals and one probe of the model each; what a bundle's overlay names stands in a panel."""
