"""Unusual inputs, by the hundred thousand: `make fuzz`.

Each target runs real code in this process and looks at what it does. An input is a value that can
be kept in a file, so that one that was found is tried again without the draw that made it.
"""
