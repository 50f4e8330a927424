"""Presets (YAML) and the arms that tables add to the strategies."""
