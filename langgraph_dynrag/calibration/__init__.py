"""Find a trigger's threshold for a model, from a few dozen questions. See `calibrate`."""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from langgraph_dynrag.calibration.calibrating import calibrate as calibrate
    from langgraph_dynrag.calibration.questions import CalibrationQuestion as CalibrationQuestion
    from langgraph_dynrag.calibration.questions import read_questions as read_questions
    from langgraph_dynrag.calibration.report import Calibration as Calibration
    from langgraph_dynrag.calibration.report import Point as Point

_EXPORTS = {
    "CalibrationQuestion": "questions",
    "Calibration": "report",
    "Point": "report",
    "calibrate": "calibrating",
    "read_questions": "questions",
}

__all__ = ["Calibration", "CalibrationQuestion", "Point", "calibrate", "read_questions"]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
