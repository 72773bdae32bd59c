"""The level of a library's logger is kept while the library is imported."""

import logging

import pytest

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


def test_a_level_set_by_the_first_import_is_undone_even_after_an_error():
    logger = logging.getLogger("a_library_that_is_not_imported")
    logger.setLevel(logging.ERROR)
    with pytest.raises(ImportError), level_kept(logger.name):
        logger.setLevel(logging.DEBUG)
        raise ImportError
    assert logger.level == logging.ERROR
