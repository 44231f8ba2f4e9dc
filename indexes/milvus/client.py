"""pymilvus, for all of this package: what loads it reads MILVUS_URI, which has to be out of the way then."""

import os

from semcut.indexes.errors import MissingDependencyError

# gRPC would write to standard error, past Python, whatever it notices of an idle connection. What fails is raised.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_uri = os.environ.pop("MILVUS_URI", None)  # pymilvus fails if it is the name of a file, or no address at all
try:
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException
except ImportError as error:
    raise MissingDependencyError(f"pymilvus does not load ({error}): run `pip install 'semcut[milvus]'`") from None
finally:
    if _uri is not None:
        os.environ["MILVUS_URI"] = _uri

__all__ = ["DataType", "MilvusClient", "MilvusException"]
