"""The map viewer of a page: any gene of any slide, measured and predicted, over the tissue; drawn by Bokeh."""
