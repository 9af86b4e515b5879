"""Settings of stage two, as pydantic models, and how recipe, options and `--set` become them."""
