"""The environment variables that belong to a user."""

import os
import pwd

import pytest

from repeater.system.users import user_environment


@pytest.mark.parametrize("form", [lambda entry: entry.pw_name, lambda entry: str(entry.pw_uid)])
def test_a_user_is_found_by_name_and_by_number(form):
    entry = pwd.getpwuid(os.getuid())
    found = user_environment(form(entry))
    assert (found["HOME"], found["USER"], found["LOGNAME"]) == (entry.pw_dir, entry.pw_name, entry.pw_name)
    assert found["SHELL"]


@pytest.mark.parametrize("user", ["nobody-knows-me", "4294967000", "9" * 30])
def test_an_unknown_user_has_no_variables(user):
    assert user_environment(user) == {}
