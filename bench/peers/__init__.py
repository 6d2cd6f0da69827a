"""What the product is compared with: the same job in the field's usual asynchronous stack."""
