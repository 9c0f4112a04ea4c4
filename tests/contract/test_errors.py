"""Every error is exported, documented, and says what to do."""

import inspect

from tinysight_contract import errors


def tree(root: type[errors.TinySightError]) -> list[type[errors.TinySightError]]:
    return [root, *(child for each in root.__subclasses__() for child in tree(each))]


def test_every_error_is_exported_documented_and_drawn() -> None:
    for kind in tree(errors.TinySightError):
        if kind.__module__ == errors.__name__:
            assert kind.__name__ in errors.__all__
            assert inspect.getdoc(kind)
            assert kind.__name__ in (errors.__doc__ or "")


def test_no_part_defines_errors_of_its_own() -> None:
    assert {kind.__module__ for kind in tree(errors.TinySightError)} == {errors.__name__}


def test_the_list_of_exports_is_sorted_and_true() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    assert all(hasattr(errors, name) for name in errors.__all__)


def test_an_error_reads_as_what_and_what_to_do() -> None:
    error = errors.BundleError("It is broken.", mend="Copy it again.")
    assert (str(error), error.what, error.mend) == ("It is broken. Copy it again.", "It is broken.", "Copy it again.")


def test_callers_that_expect_a_builtin_can_catch_it() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.ShapeError, ValueError)
    assert issubclass(errors.ContractError, ValueError)
