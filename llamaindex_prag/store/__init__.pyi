from .base import AdapterStore as AdapterStore
from .base import GcReport as GcReport
from .base import StoreStats as StoreStats
from .base import VerifyReport as VerifyReport
from .encoding import Encoding as Encoding
from .lmdb_store import LMDBStore as LMDBStore
from .peft_folder import export_peft as export_peft
from .peft_folder import import_peft as import_peft
