from .document_names import DocumentSet as DocumentSet
from .llamacpp_files import export_adapters as export_adapters
from .llamacpp_model import LlamaCppModel as LlamaCppModel
from .served_model import ServedModel as ServedModel
