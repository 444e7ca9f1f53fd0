"""Training: the loop, its resumable state, checkpoints, pretraining and fine-tuning."""
