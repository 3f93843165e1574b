"""pipeline/execution/beam_flags.py: options behind `--`, and the refusal of those that nobody knows."""

import pytest

from pipeline.execution.beam_flags import Flag, check_flags, flags
from pipeline.recipes.schema import RecipeError


def test_options_are_read_in_each_of_their_spellings():
    words = ["--parallelism=9", "--region", "north", "--streaming", "--label=a=b"]
    assert list(flags(words)) == [
        Flag("parallelism", "9", ("--parallelism=9",)),
        Flag("region", "north", ("--region", "north")),
        Flag("streaming", "", ("--streaming",)),
        Flag("label", "a=b", ("--label=a=b",)),
    ]


@pytest.mark.parametrize("words", [["nine"], ["-p"], ["--"], ["--region", "north", "south"]])
def test_a_word_that_belongs_to_no_option_is_refused(words):
    with pytest.raises(RecipeError, match="belongs to no option"):
        list(flags(words))


@pytest.mark.parametrize("words", [["--runner=SparkRunner"], ["--region=north", "--runner", "SparkRunner"]])
def test_beams_own_runner_option_is_refused(words):
    with pytest.raises(RecipeError, match="the runner is said by the command's own --runner, before the `--`"):
        check_flags(words)


def test_a_misspelt_option_is_an_error_that_names_the_nearest():
    with pytest.raises(RecipeError) as error:
        check_flags(["--paralelism=9"])
    assert str(error.value).startswith("--paralelism: no option of Beam; the nearest: --parallelism, ")


def test_options_of_the_job_server_are_known_too():
    with pytest.raises(RecipeError, match="--object_reuse: no option of Beam or of the job server"):
        check_flags(["--object_reuse"], {"execution_retry_delay"})
    check_flags(["--object_reuse", "--job_name=a"], {"object_reuse"})
    check_flags([])
