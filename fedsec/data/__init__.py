"""A site's own files become numbers: connectors, each configured by a table ``[data.NAME]``.

    settings.py   the tables, checked; light enough for the node's agent
    reading.py    from settings to `Records`: the one entry
    reference.py  every key of these tables, as a page
    files.py      which files a table names
    frames.py     files with columns -> one table of columns
    columns.py    columns -> numbers: missing values, categories, label
    images.py     images and their classes
    splitting.py  which records are for tests
    scaling.py    inputs moved and stretched, by constants or by the site's own mean and deviation
    summary.py    what may be told of a data set to whoever may not see its records

Paths and quirks stay at the site; a plan names the data set and the inputs it wants. An error names
file, row and column, never a value: logs are read by people who may not read the records.
"""
