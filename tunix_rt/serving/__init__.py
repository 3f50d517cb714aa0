"""A trained model behind an OpenAI-compatible endpoint: requests, the thread that answers them, and the chat page."""
