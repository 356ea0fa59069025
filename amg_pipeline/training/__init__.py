"""Training: synthetic scenes with exact masks, prompts drawn from them, losses and the trainer."""
