"""Settings of stage two, as pydantic models, and how recipe, options and `--set` become them.

Nothing here imports what takes long, so that a mistake in a setting is told of within a second.
"""
