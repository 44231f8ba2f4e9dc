"""What users choose by name, without what the names stand for: a command line lists it and loads neither.

HeadName      see `losses`
ProtocolName  see `protocols`
"""

from typing import Literal

HeadName = Literal["paper", "csq", "orthohash", "dpn"]

ProtocolName = Literal["cifar10", "cifar10-1", "cifar10-2", "tin200"]
