"""Readers, one per file: each turns files (or a bundled set) into a `DataSet`."""
