"""The engine against a plain model of itself, under both counters."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.leased import LeasedMachine, LeasedProcessesMachine
from tests.model.machines import ForgetfulMachine, UsageMachine


@pytest.mark.parametrize("machine", [UsageMachine, ForgetfulMachine, LeasedMachine, LeasedProcessesMachine])
def test_the_engine_does_what_its_model_does(db, machine):
    """Whatever is counted, refunded, reset and changed in whatever order, tables and readers agree with the model."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            # The same examples in each run. Others are looked for by hand: raise these numbers and drop this line.
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
