"""What our figures are compared with: a file for each peer."""
