"""Data sets of images: image files, their labels, and the division into training images, database and queries.

    sources     find a data set (folder, archive, digits, torchvision) and load it as an `ImageSet`: files and labels
    archives    unpack tar archives that may mean harm
    images      decode image files to arrays of pixels, and skip broken files with a reason
    protocols   divide a data set into training images, database and queries as published results do
    labels      look up the label of every record of an index: the name of the folder of the record's file

Other packages import from these modules directly. To add a kind of source, extend `sources.folder`; to add a protocol,
extend `ProtocolName` below and `protocols.PROTOCOLS`. Importing this package checks that Pillow is installed but does
not load Pillow or numpy, so that the command line can list the names of protocols quickly. No module here loads torch,
except to write out a torchvision data set.
"""

from typing import Literal

from semcut.indexes.errors import require as _require

ProtocolName = Literal["cifar10", "cifar10-1", "cifar10-2", "tin200"]
"""Names of the protocols; `protocols` describes each."""

_require({"PIL": "pillow"}, "read images", "train")
