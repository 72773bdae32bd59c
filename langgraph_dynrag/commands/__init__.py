"""The subcommands of `dynprag` that belong to dynamic RAG."""
