"""Search images by images, with a trained network and an index of its encodings.

In reading order:

    model_link     read and write `connector.json`: which network made an index, and where that network is
    encoder        `Encoder`: turn images into `Encodings`, batch by batch
    image_index    `Connector`: add image files to an index, search the index by image
    empty_index, linked_network    create the index of a connector; load the network that made one
    image_queries_of   turn images into queries: each alone or all together, less like others
    contact_sheet  draw search results as one picture
    duplicates_page    write groups of near-duplicates as one HTML page

Keep an index in step with the files of its images:

    file_facts     read and write `files.jsonl`: of which file, in which state, each record is the encoding
    records_by_uri which record has each uri
    indexed_files  `IndexedFiles`: which record is of which file, and all changes of these records
    file_changes, folder_changes    compare files, and a folder, with the records; change nothing
    file_records   make the records of files: by the network, or as copies of records of the same content
    adding_files, folder_sync       `semcut add` and `semcut sync`
    relinking      `semcut relink`: link an index to a later network with the same codes
    reencoding     `semcut sync --reencode`: encode all images again, with another network
    relocation     `semcut relocate`: record where images and network are now
    uri_patterns   find records by patterns of their uris

Fill and search a collection on a Milvus server:

    collection_link    which network made the records of a collection; open it with that network
    filled_collection  encode images into a collection, in parts if several machines do it

Other packages use `Connector` and `Encoder`, both public names of `semcut.connector`, and `model_link` for everything
about `connector.json`. `encoder`, `image_index`, `image_queries_of`, `linked_network`, `relinking` and `reencoding`
need torch; the others do not.
"""
