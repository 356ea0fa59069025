"""The exceptions of the package, as one tree.

    AmgPipelineError
    ├── ConfigError                  wrong usage or settings: the run ends at once, exit code 2
    │   └── FingerprintMismatchError the output directory belongs to a run with other settings
    ├── WeightsError                 a checkpoint that cannot be read or does not fit the model
    ├── ImageError                   one image; becomes a row with a status, the shard goes on
    │   ├── ImageFetchError          status `fetch_error`
    │   │   └── ImageNotFoundError   the same status; a fact of the input, not a failure of the run
    │   ├── ImageDecodeError         status `decode_error`
    │   └── ImageTooLargeError       status `too_large`
    ├── StorageError                 object store or disk; the shard's attempt fails
    │   ├── StorageAccessError       credentials refused, bucket missing: the run ends at once
    │   ├── TransientStorageError    throttling, time-outs, resets: the only error that is retried
    │   └── CommitConflictError      a create-only object exists already
    ├── ShardError                   a shard whose attempt failed
    └── JobIncompleteError           the run ended with images or shards left over, exit code 3

Every message says what was expected, what was received and how to repair it. Constructors take
positional arguments only, so that the errors survive pickling between Ray processes. This module
imports nothing.
"""


class AmgPipelineError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(AmgPipelineError):
    """A setting, argument, input or output that cannot be used as given."""


class FingerprintMismatchError(ConfigError):
    """The output directory was made with settings that change the result."""


class WeightsError(AmgPipelineError):
    """A weights file that is unreadable, unsafe, or does not fit the model."""


class ImageError(AmgPipelineError):
    """A fault of one image; `status` is the value of its row's `status` column."""

    status = "decode_error"


class ImageFetchError(ImageError):
    """The bytes of an image could not be read."""

    status = "fetch_error"


class ImageNotFoundError(ImageFetchError):
    """Nothing lies at the image's address."""


class ImageDecodeError(ImageError):
    """The bytes were read but are no decodable image."""

    status = "decode_error"


class ImageTooLargeError(ImageError):
    """The image has more pixels than `images.max_pixels` allows."""

    status = "too_large"


class StorageError(AmgPipelineError):
    """A read or write that failed for good: permission, missing bucket, full disk."""


class StorageAccessError(StorageError):
    """An object store that refuses the caller, or has no such bucket: nothing else would work."""


class TransientStorageError(StorageError):
    """A read or write that may succeed when tried again."""


class CommitConflictError(StorageError):
    """An object that was to be created exists already."""


class ShardError(AmgPipelineError):
    """A shard whose attempt failed as a whole."""


class JobIncompleteError(AmgPipelineError):
    """A run that ended although images or shards are left without a result."""
