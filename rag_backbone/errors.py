"""The exception tree of dynprag.

Every error says what was wrong, the value, and what would be right. Each class is also the
built-in that a caller would think of catching.
"""


class DynPragError(Exception):
    """Root of every exception that dynprag raises on purpose."""


class ConfigurationError(DynPragError, ValueError):
    """An option is out of range, unknown, or contradicts another one."""


class MissingExtraError(DynPragError, ImportError):
    """A package that belongs to an optional extra is not installed."""


class SignalUnavailableError(ConfigurationError):
    """A trigger or a formulator needs a signal that the model at hand cannot give."""


class ContextWindowError(DynPragError, ValueError):
    """The prompt does not fit into the model's context window."""


class ModelLoadError(DynPragError, OSError):
    """A model folder or name cannot be loaded: missing, truncated, or not a decoder-only model."""


class DownloadError(DynPragError, OSError):
    """An embedded model could not be fetched."""


class IntegrityError(DynPragError, OSError):
    """A file is not what its checksum says it should be."""


class CacheFolderError(DynPragError, OSError):
    """The cache folder cannot be written (read-only, full, or not a folder)."""


class AdapterError(DynPragError, RuntimeError):
    """Adapters were asked for and cannot be applied."""


class ServerError(DynPragError, RuntimeError):
    """A model server answered with what cannot be used: a refusal, garbage, half an answer."""


class ServerUnavailableError(ServerError):
    """A model server cannot be reached, or takes no requests for now; the same call may succeed later."""


class NoAnswerError(DynPragError, RuntimeError):
    """A model was asked as often as the budget allows, and wrote no text of an answer."""


class IndexFolderError(DynPragError, OSError):
    """The folder of a document index cannot be read or written: damaged, incomplete, read-only, or full."""
