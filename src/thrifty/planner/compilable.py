"""What can be compiled: with which model, beside which checkpointing, and with what tools at hand."""

from __future__ import annotations

from thrifty.errors import JobError
from thrifty.models.compiling import lacking
from thrifty.spec import Compile, Job

# Ways of checkpointing that go with a way of compiling. Selective checkpointing looks at each operator as it runs, and
# in compiled code there are none to be seen; what compiled blocks keep is about as little.
BESIDE: dict[Compile, tuple[str, ...]] = {
    "none": ("none", "selective", "full"),
    "blocks": ("none", "full"),
    "whole": ("none",),
}


def check_compile(job: Job, device: str, *, repeats: bool) -> None:
    """Check what a job asks to be compiled.

    Args:
        job: what is wanted.
        device: ``cpu`` or ``cuda``.
        repeats: the model has repeated blocks.

    Raises:
        JobError: it cannot be done with this model, beside this checkpointing, or on this machine.
    """
    asked, again = job.plan.compile, job.plan.checkpointing
    if asked is None or asked == "none":
        return
    if asked == "blocks" and not repeats:
        raise JobError(
            f"plan.compile is 'blocks', and model '{job.model}' has no repeated blocks", mend="Ask for 'whole'."
        )
    if again is not None and again not in BESIDE[asked]:
        raise JobError(
            f"plan.compile is '{asked}', and does not go with plan.checkpointing '{again}'",
            mend=f"It goes with {' or '.join(map(repr, BESIDE[asked]))}.",
        )
    if tool := lacking(device):
        raise JobError(
            f"plan.compile is '{asked}', and compiling for {device} needs {tool}, which is not here",
            mend="Install it, or leave plan.compile out.",
        )
