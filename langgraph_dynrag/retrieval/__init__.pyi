from .bm25 import BM25Retriever as BM25Retriever
from .dense import DenseRetriever as DenseRetriever
from .files import Splitter as Splitter
from .hybrid import HybridRetriever as HybridRetriever
from .index import LocalIndex as LocalIndex
from .minilm import MiniLMEmbeddings as MiniLMEmbeddings
from .ray_embeddings import RayEmbeddings as RayEmbeddings
