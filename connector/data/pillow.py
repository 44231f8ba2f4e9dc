"""Pillow, and the formats that it may read, for all modules of this package that need it.

Without Pillow, they say which extra installs it.

Commands that only maintain a stored index, such as `semcut remove`, import no module that needs Pillow. So nothing that
they import may import this module: `tests/test_start.py` checks that.

    Image, ImageOps      images, and operations on them
    TiffImagePlugin      the tags of TIFF files
    WebPImagePlugin      registers WebP files, whose frames are counted by their header
    JpegImageFile        files that can be decoded at a smaller scale

Modules of other packages that need Pillow import it themselves: `connector.models` and `connector.explore`, which are
imported before them, report that it is missing. Nothing is configured here: limits belong to the process that decodes,
see `decoding_worker`.
"""

from semcut.indexes.errors import require

require({"PIL": "pillow"}, "read images", "train")

from PIL import Image as Image  # noqa: E402  # only now, so that the error above is the one that users see
from PIL import ImageOps as ImageOps  # noqa: E402
from PIL import TiffImagePlugin as TiffImagePlugin  # noqa: E402
from PIL import WebPImagePlugin as WebPImagePlugin  # noqa: E402
from PIL.JpegImagePlugin import JpegImageFile as JpegImageFile  # noqa: E402

__all__ = ["FORMATS", "Image", "ImageOps", "JpegImageFile", "TiffImagePlugin", "WebPImagePlugin"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
"""Formats that are read: those that Pillow decodes itself, AVIF where it was built with it, and HEIF (HEIC, of phones)
with pillow-heif. For some others (EPS), Pillow starts external programs."""
