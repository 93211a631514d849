"""What a browser would send: the fields of a form as they were rendered, and what a person changes."""

from usage_tracking.admin.operations import OPERATIONS

OPERATION = {operation.name: operation for operation in OPERATIONS}


def filled(name, *organizations, **changes):
    """Return the data of an operation's form: what it shows, with `changes`."""
    form = OPERATION[name].form(list(organizations))
    data = {field.html_name: field.value() for field in form if field.value() is not None}
    if "meter" in form.fields:
        data["meter"] = "api"  # the first choice, which a browser shows
    return {**data, "reason": "They asked for it.", **changes}
