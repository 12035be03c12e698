"""Families mined from source code: one module and one template file each."""
