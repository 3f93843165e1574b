"""What a recipe may say: schema, rules, lists, checks, and the recipes that come with the package."""
