"""Copy a stored index to Milvus, or back, and verify that the copy is complete.

Its modules, in reading order:

journal       `Journal`: the file that lists the copied batches, so that an interrupted copy can be resumed
copy          `Migration`: read batches from the source, write them to the target, list them in the journal
comparison    compare the records of source and target, and their answers to searches

`semcut migrate` is the only user: `Journal`, then `Migration.copy`, then `Migration.verify`. The lines of a journal are
a stored format; changing them needs a new `journal.FORMAT_VERSION`.
"""
