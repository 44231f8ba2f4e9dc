"""Exchange encodings with other programs: Parquet files, and arrays of numpy.

    encoding_columns  the columns of a file of encodings, and how they become `Encodings`
    attribute_arrow   attributes in the columns of Parquet files
    attribute_arrays  attributes in arrays of numpy
    parquet_files     write an index to a Parquet file, and read one
    numpy_files       read .npz archives and structured .npy arrays
    copies            `export_encodings` and `import_encodings`: whole indexes, in bounded memory

`copies` is what commands and programs call. Only `parquet_files` and `attribute_arrow` need pyarrow (extra `parquet`).
A file that was exported has the configuration of its index and the link to its network, so an import gives the same
index, bit for bit.
"""
