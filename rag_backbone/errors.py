"""The exception tree of dynprag.

Every error says what was wrong, the value, and what would be right. Each class also derives from the built-in exception
that a caller would think of catching.
"""


class DynPragError(Exception):
    """Root of every exception that dynprag raises on purpose."""


class ConfigurationError(DynPragError, ValueError):
    """An option is out of range, unknown, or contradicts another one."""


class MissingExtraError(DynPragError, ImportError):
    """A package that belongs to an optional extra is not installed."""


class SignalUnavailableError(ConfigurationError):
    """A trigger or a query formulator needs a signal that the model cannot provide."""


class ContextWindowError(DynPragError, ValueError):
    """The prompt does not fit into the model's context window."""


class ModelLoadError(DynPragError, OSError):
    """A model folder or name cannot be loaded: missing, truncated, or not a decoder-only model."""


class DownloadError(DynPragError, OSError):
    """An embedded model could not be fetched."""


class IntegrityError(DynPragError, OSError):
    """A file does not match its checksum."""


class CacheFolderError(DynPragError, OSError):
    """The cache folder cannot be written (read-only, full, or not a folder)."""


class AdapterError(DynPragError, RuntimeError):
    """Adapters were requested but cannot be applied."""


class ServerError(DynPragError, RuntimeError):
    """A model server gave an unusable answer: a refusal, garbage, or an incomplete answer."""


class ServerUnavailableError(ServerError):
    """A model server cannot be reached or does not accept requests at the moment; the same call may succeed later."""


class NoAnswerError(DynPragError, RuntimeError):
    """A model was called as often as the budget allows, but wrote no answer text."""


class IndexFolderError(DynPragError, OSError):
    """The folder of a document index cannot be read or written: damaged, incomplete, read-only, or full."""
