"""Search images by images, with a trained network and an index of its encodings.

In reading order:

    model_link     read and write `connector.json`: which network made an index, and where that network is
    encoder        `Encoder`: turn images into `Encodings`, batch by batch
    image_index    `Connector`: add image files to an index, search the index by image
    contact_sheet  draw search results as one picture

Other packages use `Connector` and `Encoder`, both public names of `semcut.connector`, and `model_link` for everything
about `connector.json`. `encoder` and `image_index` need torch; `model_link` and `contact_sheet` do not.
"""

import semcut.connector.data  # noqa: F401  # reports that Pillow is missing before a module here fails to import it
