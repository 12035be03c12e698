"""Families mined from prose: one module and one template file each."""
