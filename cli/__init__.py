"""What a person types: options become calls of one function of `pipelines`, its result becomes text or JSON."""
