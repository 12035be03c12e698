"""The room for trainers that TRL lacks: PPO and implicit Q-learning (ILQL)."""
