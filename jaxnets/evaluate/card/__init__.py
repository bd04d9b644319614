"""The model card: README.md as the Hugging Face Hub reads it, made of what a run says of itself."""
