"""Pillow, for all modules of this package that read or write images; without it, they say which extra installs it.

Commands that only maintain a stored index, such as `semcut remove`, import no module that needs Pillow. So nothing that
they import may import this module: `tests/test_start.py` checks that.

    Image, ImageOps      images, and operations on them
    TiffImagePlugin      the tags of TIFF files
    WebPImagePlugin      registers WebP files, whose frames are counted by their header
    JpegImageFile        files that can be decoded at a smaller scale

Modules of other packages that need Pillow import it themselves: they also import `connector.models`, which reports that
Pillow is missing, before them. Nothing is configured here: limits belong to the process that decodes, see
`decoding_worker`.
"""

from semcut.indexes.errors import require

require({"PIL": "pillow"}, "read images", "train")

from PIL import Image as Image  # noqa: E402  # only now, so that the error above is the one that users see
from PIL import ImageOps as ImageOps  # noqa: E402
from PIL import TiffImagePlugin as TiffImagePlugin  # noqa: E402
from PIL import WebPImagePlugin as WebPImagePlugin  # noqa: E402
from PIL.JpegImagePlugin import JpegImageFile as JpegImageFile  # noqa: E402

__all__ = ["Image", "ImageOps", "JpegImageFile", "TiffImagePlugin", "WebPImagePlugin"]
