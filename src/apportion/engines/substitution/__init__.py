"""Engine 1: run a model with some of its functions replaced, its parameters constant, and nothing mutated.

`Gradients` is what methods begin with; `Substitution` is the mode under which the model runs.
"""

from apportion.engines.substitution.call import Call, Run, Substitute, native
from apportion.engines.substitution.engine import Substitution
from apportion.engines.substitution.gradients import Gradients, Score
from apportion.engines.substitution.harmless import HARMLESS, no_derivatives, without_running_updates

__all__ = [
    "HARMLESS",
    "Call",
    "Gradients",
    "Run",
    "Score",
    "Substitute",
    "Substitution",
    "native",
    "no_derivatives",
    "without_running_updates",
]
