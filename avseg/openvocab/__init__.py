"""Sounding objects by name: what a tagger hears, as nouns that a text-prompted segmenter can find."""
