"""Every setting is documented where it is defined."""

import re
from dataclasses import fields

from voxlift.app.config import commands, schema, studies


def test_every_field_is_described_once_in_the_docstring_of_its_class():
    groups = [
        one for one in vars(schema).values() if isinstance(one, type) and one.__module__ == schema.__name__
    ]
    assert len(groups) >= 10
    for settings in (*groups, *commands.COMMANDS.values(), *studies.STUDIES.values()):
        own = [
            name for name in settings.__annotations__ if name in {field.name for field in fields(settings)}
        ]
        assert re.findall(r"^        (\w+): \S", settings.__doc__, re.MULTILINE) == own, settings
