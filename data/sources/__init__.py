"""One reader a file: each turns files (or an embedded set) into a `DataSet`."""
