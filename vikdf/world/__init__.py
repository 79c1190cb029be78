"""The embedded world: nouns whose looks only pictures tell, and the corpora, dialogues and texts made of them."""
