"""What the product is compared with: the least code that does the same, on the same machine, in the same run."""
