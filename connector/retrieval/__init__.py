"""Search images by images: a trained network and an index of its encodings, used as one.

In reading order:

    model_link     which network made an index, and where it is: reads and writes `connector.json`, without torch
    encoder        `Encoder`: image files to `Encodings`, batch by batch
    image_index    `Connector`: add image files to an index, search it by image
    contact_sheet  draw search results as one picture

Other rooms use `Connector` and `Encoder` (also public as `semcut.connector.Connector`), and `model_link` for everything
about `connector.json`. `encoder` and `image_index` need torch; `model_link` and `contact_sheet` need only Pillow.
"""

import semcut.connector.data  # noqa: F401  # reports that Pillow is missing before a module here fails to import it
