"""What is trained on a base: choosing its targets, applying it, proving it, saving and loading it (wraps PEFT)."""
