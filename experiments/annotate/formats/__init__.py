"""Suggestions and labels as files of other annotation tools: one file per tool."""
