"""The sections of a split's part of the page: each module has a `section(part)`, None where no file holds what it shows."""
