"""What reads corpora as they are published: image-text pairs and dialogues in every form, and pictures from the web."""
