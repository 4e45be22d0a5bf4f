"""The rows: a package for each, with a module for each library."""
