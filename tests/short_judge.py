"""A judge that is trained in seconds, under a recipe of its own."""

from functools import partial

from cvae.evaluation import judge
from cvae.evaluation.judge_training import Recipe

SHORT = Recipe(steps=200)  # a third of the images, once
short_judge_of = partial(judge.judge_of, recipe=SHORT)
# Python that lets a command of `warm`, which has not imported the judge yet, ask for this one
BEFORE = "from cvae.evaluation import judge; import short_judge as short; " + (
    "judge.judge_of = short.short_judge_of"
)
