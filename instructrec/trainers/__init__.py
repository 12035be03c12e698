"""Trainers that TRL lacks: PPO; the room for implicit Q-learning (ILQL)."""
