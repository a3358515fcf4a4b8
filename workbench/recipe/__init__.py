"""What a person writes: the schema of a recipe, its loading, its rules and its resolution."""
