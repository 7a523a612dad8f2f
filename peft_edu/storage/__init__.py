"""What is written to disk, and read from it: our own folders, and those of Hugging Face peft."""
