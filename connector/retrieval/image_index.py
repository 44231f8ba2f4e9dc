"""`Connector`: a trained network together with an index of its encodings.

Codes and features of different networks cannot be compared, so a stored index is opened only with the network that made
it. `model_link` records which network that is.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Self

from semcut.connector.data.file_arguments import files_given, roots_given
from semcut.connector.data.image_arguments import images_given
from semcut.connector.data.image_uris import common_root, paths_of
from semcut.connector.data.labels import RecordLabels, labels_by_id
from semcut.connector.data.listed_attributes import attribute_types_given
from semcut.connector.models.adopted_network import AdoptedNet
from semcut.connector.models.checkpoint import Checkpoint, copy_network
from semcut.connector.models.device import device_named
from semcut.connector.retrieval.adding_files import Indexed, add_paths
from semcut.connector.retrieval.empty_index import create_empty
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.folder_changes import folder_given
from semcut.connector.retrieval.folder_sync import Synced, sync_folder
from semcut.connector.retrieval.given_attributes import GivenAttributes
from semcut.connector.retrieval.given_keys import keys_by_uri
from semcut.connector.retrieval.hits import Hit, hits_of
from semcut.connector.retrieval.image_queries_of import expansion_given, image_queries, records_of
from semcut.connector.retrieval.indexed_files import IndexedFiles
from semcut.connector.retrieval.linked_network import linked_encoder
from semcut.connector.retrieval.model_link import read_link, required_link, write_link
from semcut.connector.retrieval.search_defaults_of import ADOPTED, STANDARD, Own, SearchDefaults
from semcut.indexes import FaissIndex, SearchResult, SemanticIndex
from semcut.indexes.argument_checks import callback_given, flag_given, instance_given, path_given, possible_path_given
from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.attributes.expressions import Expression
from semcut.indexes.attributes.selections import Among
from semcut.indexes.errors import DataError, SemcutWarning
from semcut.indexes.open_with import open_with
from semcut.indexes.progress import Progress, silent
from semcut.indexes.scanners.engine_names import EngineName
from semcut.indexes.search_defaults import DEFAULT_K
from semcut.indexes.search_params import Ranking
from semcut.indexes.unfinished import unfinished


class Connector:
    """A network and an index of its encodings; a context manager that closes the index at the end.

    `create` and `open` use a `FaissIndex`. The constructor takes any other `SemanticIndex` of the same network's
    encodings, and the folder to which its uris are relative (root), if they are.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: SemanticIndex,
        roots: Iterable[str | os.PathLike[str]] = (),
        *,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        self.encoder = instance_given("encoder", encoder, Encoder, "Encoder(Checkpoint.load(path)) makes one")
        self.index = instance_given("index", index, SemanticIndex, "FaissIndex.open(path) opens one")  # type: ignore[type-abstract]
        self.roots = roots_given("roots", roots)
        self.defaults = defaults_of(encoder)
        self._path: Path | None = None  # of an index that `create` or `open` has stored
        self.files = IndexedFiles(index, None, None if root is None else possible_path_given("root", root))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        model: str | os.PathLike[str],
        *,
        device: str = "cpu",
        roots: Iterable[str | os.PathLike[str]] = (),
        keep_network: bool = False,
        engine: EngineName = "auto",
        attributes: Mapping[str, AttributeType] | None = None,
        string_ids: bool = False,
    ) -> Self:
        """Create an empty index for the encodings of a network.

        Args:
            path: a new or empty directory for the index; None keeps the index in memory.
            model: run directory of the network.
            device: device that the network encodes on.
            roots: absolute paths of folders whose folders are the classes of the images that will be added. The class
                of other files is the name of their own folder.
            keep_network: whether to copy the network into the directory of the index, which then needs no other.
            engine: engine that scans the index, see `FaissIndex.create`.
            attributes: the type of each attribute that images have, by its name, see `IndexConfig.attributes`.
            string_ids: whether the ids of records are strings, which `add_files` is given as keys.

        Raises:
            CheckpointError: the directory `model` holds no usable network.
            IndexExistsError: `path` exists and is not an empty directory; the message says whether an unfinished index
                is there.
            DataError: the device cannot be used, or there are too many roots.
            InvalidParameterError: an argument is of another type, or a path that no file can have.
        """
        place = None if path is None else path_given("path", path)
        folders = roots_given("roots", roots)
        device_named(device)
        chosen = {"attributes": attribute_types_given(attributes), "string_ids": flag_given("string_ids", string_ids)}
        checkpoint = Checkpoint.load(model)
        encoder = Encoder(checkpoint, device)
        kept, root = flag_given("keep_network", keep_network), common_root(folders)

        def fill() -> None:
            assert place is not None
            if kept:
                copy_network(checkpoint.path, place)
            write_link(
                place,
                model=place if kept else checkpoint.path,
                sha256=checkpoint.digest,
                head=checkpoint.net.architecture.head,
                binarisation=checkpoint.net.binarisation,
                roots=folders,
                **defaults_of(encoder).content(),
                root=root,
            )

        index = create_empty(place, encoder.index_config().model_copy(update=chosen), engine, fill)
        connector = cls(encoder, index, folders)
        connector._path, connector.files = place, IndexedFiles(index, place, root)
        return connector

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        engine: EngineName = "auto",
    ) -> Self:
        """Open a stored index with the network that made it.

        Args:
            path: directory of the index.
            model: run directory of the network, if the network was moved after the index was made.
            device: device that the network encodes on.
            engine: engine that scans the index, see `FaissIndex.create`.

        Raises:
            NotAnIndexError: the directory holds no index, or the index was not made by a connector.
            CheckpointError: the network is missing, or is not the one that made the index.
            DataError: the device cannot be used.
            InvalidParameterError: an argument is of another type, or out of range.

        Warns:
            SemcutWarning: the index has no records, or is unfinished: `add_files` was interrupted.
        """
        if model is not None:
            path_given("model", model)
        device_named(device)
        index, link = open_with(lambda: FaissIndex.open(path, engine=engine), lambda _: required_link(path))
        try:
            connector = cls(linked_encoder(path, link, model, device), index, link.roots)
            connector._path, connector.files = Path(path), IndexedFiles(index, Path(path), link.root)
            connector.defaults = link.defaults
            if not len(index) and unfinished(path, 0) is None:  # of an unfinished one, opening it has warned
                warnings.warn(f"{path} has no records", SemcutWarning, stacklevel=2)
            return connector
        except BaseException:
            index.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def add_files(
        self,
        files: Iterable[str | os.PathLike[str]],
        *,
        progress: Progress | None = None,
        resume: bool = False,
        copies: bool = True,
        attributes: Mapping[str, Sequence[Any]] | None = None,
        keys: Sequence[str] | None = None,
    ) -> Indexed:
        """Encode image files and add them to the index, batch by batch; new ids follow the largest id in the index.

        A file that has a record already is skipped, or encoded anew, with the same id, if its content has changed. If
        this is interrupted, or fails, a stored index has the images of earlier batches. Opening it then warns that it
        is unfinished, as all commands do, until a call with the same files has added the others.

        Args:
            files: paths of the files. The uris of the records are these paths, relative to the root of the index if
                they are below it.
            progress: called with the number of files that were encoded or skipped.
            resume: leave out all files that the index has, by their paths, and go on with the making of the index.
            copies: whether to add a file whose content another record, or an earlier file, has.
            attributes: of each attribute, by its name, a value for each file, None where it is missing. A record that
                is there already gets them, too, without being encoded again, and keeps its others.
            keys: for an index whose ids are strings, the id of each file; None if all of them have records.

        Raises:
            InvalidEncodingsError: the index has no such attribute, or it cannot have one of the values.
            InvalidParameterError, DuplicateIdError: as for `keys_by_uri`, or another record has a key.
            LockedError, ClosedIndexError: another writer is at work, or the index was closed; it is as it was before.
            StorageError: the index cannot be written.
        """
        paths = files_given("files", files)
        callback_given("progress", progress)
        resume, copies, given = flag_given("resume", resume), flag_given("copies", copies), GivenAttributes()
        uris = list(map(self.files.uri_of, paths))
        given.put(self.index.config.attributes, uris, {} if attributes is None else attributes)
        return add_paths(
            self.files, self._path, paths, lambda: self.encoder, progress or silent, resume=resume, copies=copies,
            given=given, keys=keys_by_uri(self.index, uris, keys),
        )  # fmt: skip

    def sync(
        self, folder: str | os.PathLike[str] | None = None, *, dry_run: bool = False, progress: Progress | None = None
    ) -> Synced:
        """Bring the index in step with a folder: add, replace, move and remove records until they are its files.

        Args:
            folder: the folder; None for the folder of the index, which has all its images.
            dry_run: whether to change nothing.
            progress: called with the number of files that were encoded or skipped.

        Raises:
            DataError: the folder is not there, cannot be listed or is empty, so nothing was removed for it.
            LockedError, StorageError, ClosedIndexError: as for `add_files`.
            InvalidParameterError: an argument is of another type.
        """
        own = self.files.root or common_root(self.roots)
        given = own if folder is None else possible_path_given("folder", folder)
        if given is None:
            raise DataError("the index does not record the folder of its images: give one")
        callback_given("progress", progress)
        path = folder_given(given, own)
        result = sync_folder(
            self.files, self._path, path, lambda: self.encoder, progress or silent,
            whole=path == own, dry_run=flag_given("dry_run", dry_run), network=self.encoder.checkpoint.path,
        )  # fmt: skip
        link = None if self._path is None else read_link(self._path)
        self.roots = self.roots if link is None else link.roots
        return result

    def ids_of(self, files: Iterable[str | os.PathLike[str]]) -> NDArray[np.int64]:
        """Look up records by the paths of their files: (n,) int64, -1 for a file without a record.

        The first call after a change reads the uris of all records, unless the change was made by this object.

        Raises:
            DataError: `files` holds something else than paths.
        """
        return self.files.ids_of(files_given("files", files))

    def paths(self, ids: Any) -> list[str | None]:
        """Return the paths of the files of records, in the order of the ids; None for a record without a uri.

        Raises:
            UnknownIdError: an id is not in the index.
        """
        return paths_of(self.index.uris(ids), self.files.root)

    def search(
        self,
        images: Iterable[str | os.PathLike[str] | Image.Image],
        *,
        k: int = DEFAULT_K,
        cutoff: float | Own | None = "own",
        shortlist: int | Own | None = "own",
        ranking: Ranking | Own = "own",
        fill: bool = True,
        where: Expression | str | None = None,
        among: Among | Any = None,
        exclude_self: bool = False,
        diversity: float = 0.0,
        expand: int = 0,
        together: bool = False,
        less_like: Iterable[str | os.PathLike[str] | Image.Image] = (),
        skipped: list[tuple[str, str]] | None = None,
    ) -> list[list[Hit]]:
        """Find the k best records for each image, best first.

        Args:
            others: as for `SemanticIndex.search`.
            cutoff, shortlist, ranking: "own" are those of the index, which `semcut info` shows.
            exclude_self: whether the record of each file in `images` is left out of its answer.
            expand: number of first results that each query is averaged with, to search again; see `expanded_queries`.
            together: whether all images make one query, with one answer: see `joined_query`.
            less_like: images that the results of every query shall be less like.
            skipped: gets a pair (image, reason) for each image that cannot be read; None for an error.

        Raises:
            DataError: an image cannot be read.
            InvalidParameterError: an argument is out of range.
        """
        images, less = images_given("images", images), images_given("less_like", less_like)
        if skipped is not None:
            instance_given("skipped", skipped, list)
        params = self.defaults.params(
            k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking, fill=fill, exclude_self=exclude_self,
            diversity=diversity,
        )  # fmt: skip
        joined, expand = flag_given("together", together), expansion_given(expand)
        records = records_of(images, self.files.ids_of, self.index) if params.exclude_self else None
        queries = image_queries(self.encoder, images, less, records, together=joined, skipped=skipped)
        queries = queries.expanded(self.index, params, where, among, expand)
        found: list[list[Hit]] = [[] for _ in (images[:1] if joined else images)]
        for position, hits in zip(
            queries.images, self.hits(queries.search(self.index, params, where, among)), strict=True
        ):
            found[0 if joined else position] = hits
        return found

    def labels(self, classes: Sequence[str]) -> RecordLabels:
        """Look up the label of every record by its id; -1 if its class is not in `classes`: see `labels_by_id`.

        Raises:
            InvalidParameterError: `classes` is no list of different names.
        """
        return labels_by_id(self.index, classes, self.roots, self.files.root)

    def hits(self, result: SearchResult) -> list[list[Hit]]:
        """Convert the result of a search to a list of hits for each query, with the uris of the records.

        Raises:
            UnknownIdError: a record was removed since, or is of another index.
        """
        return hits_of(instance_given("result", result, SearchResult), self.index, self.paths)


def defaults_of(encoder: Encoder) -> SearchDefaults:
    """Return the defaults of searches of a new index of a network's encodings."""
    return ADOPTED if isinstance(encoder.checkpoint.net, AdoptedNet) else STANDARD
