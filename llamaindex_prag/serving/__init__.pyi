from .document_names import DocumentSet as DocumentSet
from .served_model import ServedModel as ServedModel
