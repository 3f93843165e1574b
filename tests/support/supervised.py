"""Run the steps of tests/support/steps.py in supervised workers."""

from pipeline.execution.backends import RunnerOptions
from pipeline.execution.progress import Progress
from pipeline.execution.supervisor import Supervisor
from pipeline.recipes.load import parse_recipe

RECIPE = parse_recipe({"tier": {"a": {"size": 64}}})


def run(step, **options):
    units = step.units()
    supervisor = Supervisor(step, RunnerOptions(**options), Progress(step.name, len(units)))
    supervisor.run([unit for unit in units if step.journal.done(unit.name, unit.key) is None])
    return supervisor
