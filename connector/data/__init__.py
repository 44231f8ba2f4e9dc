"""Images, their labels, and the data sets that they come from. Needs Pillow; never loads torch.

    sources     find a data set by name (folder, archive, digits, torchvision) as an `ImageSet` of files and labels
    images      decode image files to arrays of pixels, and skip broken files with a reason
    protocols   divide a data set into training images, database and queries as published results do
    labels      read the label of every record of an index from the folder that its file lies in

Other rooms import from these modules directly. A new kind of source goes into `sources.folder`, a new protocol into
`ProtocolName` below and `protocols.PROTOCOLS`. Importing this package checks that Pillow is installed but does not load
Pillow or numpy, so that the command line can list the names of protocols quickly.
"""

from typing import Literal

from semcut.indexes.errors import require as _require

ProtocolName = Literal["cifar10", "cifar10-1", "cifar10-2", "tin200"]
"""Names of the protocols; `protocols` describes each."""

_require({"PIL": "pillow"}, "read images", "train")
