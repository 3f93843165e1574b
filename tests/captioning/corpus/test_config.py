"""[caption.audit] knows its keys and their bounds."""

import pytest
from pydantic import ValidationError

from captioning.corpus.config import AuditConfig


def test_nothing_is_counted_unless_it_is_asked():
    assert AuditConfig().max_repeats is None
    assert AuditConfig(max_repeats=50).max_repeats == 50


@pytest.mark.parametrize("values", [{"max_repeats": 0}, {"max_repeat": 3}])
def test_wrong_values_and_keys_are_refused(values):
    with pytest.raises(ValidationError):
        AuditConfig(**values)
