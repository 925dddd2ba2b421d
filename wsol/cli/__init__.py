"""One verb each: read files, call rooms, write files. The only room that knows YAML, paths and arguments."""
