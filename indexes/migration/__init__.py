"""Copy a stored index to Milvus, or back, and prove that the copy is complete.

Its modules, in reading order:

journal       the file that says which batches have been copied, so that an interrupted copy can be resumed
copy          `Migration`: read batches from the source, write them to the target, note them in the journal
comparison    whether source and target hold the same records and give the same answers

`semcut migrate` is the only user: `Journal`, then `Migration.copy`, then `Migration.verify`. The lines of a journal are
a stored format; changing them needs a new `journal.FORMAT_VERSION`.
"""
