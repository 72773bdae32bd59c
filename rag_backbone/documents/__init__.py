"""Reading documents: finds files, decodes them, and turns them into documents. Knows no framework."""

from rag_backbone.documents.decoding import UndecodableError as UndecodableError
from rag_backbone.documents.decoding import check_encoding as check_encoding
from rag_backbone.documents.decoding import decode as decode
from rag_backbone.documents.decoding import read_text_file as read_text_file
from rag_backbone.documents.finding import Found as Found
from rag_backbone.documents.finding import FoundFile as FoundFile
from rag_backbone.documents.finding import find_files as find_files
from rag_backbone.documents.json_lines import read_json_lines as read_json_lines
from rag_backbone.documents.pieces import Note as Note
from rag_backbone.documents.pieces import ReadDocument as ReadDocument
from rag_backbone.documents.pieces import Skipped as Skipped
from rag_backbone.documents.reading import SUFFIXES as SUFFIXES
from rag_backbone.documents.reading import read_file as read_file
from rag_backbone.documents.report import Findings as Findings
from rag_backbone.documents.report import told as told
