import doctest
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_worked_examples_of_the_readme_are_true():
    results = doctest.testfile(str(README), module_relative=False, encoding="utf-8")
    assert results.attempted > 15
    assert results.failed == 0
