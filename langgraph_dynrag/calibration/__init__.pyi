from .calibrating import calibrate as calibrate
from .questions import CalibrationQuestion as CalibrationQuestion
from .questions import read_questions as read_questions
from .report import Calibration as Calibration
from .report import Point as Point
