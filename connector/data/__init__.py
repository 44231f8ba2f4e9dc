"""Data sets of images: image files, their labels, and the division into training images, database and queries.

    sources         find a data set (folder, archive, list, digits, torchvision), load it as an `ImageSet` with labels
    source_folders  unpack an archive, or write out another data set, into the cache
    remote_sources  fetch a source that has an address into the cache, by fsspec
    packed_files    find Parquet files (read by parquet_images) and shards of WebDataset (by webdataset_shards), whose
                    images sample_folders writes as a folder
    image_folders   list the files and classes of a folder, by the one rule of all commands
    list_files      read lists of files and labels, .csv and .jsonl; csv_table and text_lines bound a row
    library_datasets    write data sets of scikit-learn and torchvision as folders
    image_contents  identify images by their content; check which images can be read
    archives        unpack archives that may mean harm: tar_archives and zip_archives read them, archive_members has
                    the limits
    images          read image files as arrays of pixels, and skip broken files with a reason
    decoding_pool, decoding_worker, decoding_messages    decode them in processes with limits of memory and time
    decode_stream   decode one image file to RGB, in such a process
    pillow          Pillow, or an error that says what to install
    pixel_modes     convert pictures of any mode and depth to RGB, as a viewer shows them
    protocols       divide a data set into training images, database and queries as published results do
    image_uris      turn the uri that an index stores into the path of a file, and back
    labels          look up the labels of every record of an index: by the class folder of its file, or in a list
    label_sets      hold the labels of many images, any number of each
    class_names, file_arguments, image_arguments    check arguments of the public functions

Other packages import from these modules directly. To add a kind of source, extend `source_folders.source_folder`; to
add a protocol, extend `ProtocolName` below and `protocols.PROTOCOLS`. Importing this package loads neither Pillow nor
numpy, so that the command line can list the names of protocols quickly. Modules that need Pillow import it from
`pillow`; commands that maintain a stored index import none of them. No module here loads torch, except to write out a
torchvision data set.
"""

from typing import Literal

ProtocolName = Literal["cifar10", "cifar10-1", "cifar10-2", "tin200"]
"""Names of the protocols; `protocols` describes each."""
