"""The level of a library's logger is kept while the library is imported."""

import logging

from rag_backbone.logger_levels import level_kept


def test_the_level_of_an_already_imported_library_is_left_alone():
    logger = logging.getLogger("json")
    logger.setLevel(logging.DEBUG)
    try:
        with level_kept("json"):
            logger.setLevel(logging.INFO)
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(logging.NOTSET)
