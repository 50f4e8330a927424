"""A report written as a page, as Markdown and as LaTeX."""
