"""What a graph is given: validation, the question of a conversation, and questions made to stand alone."""
