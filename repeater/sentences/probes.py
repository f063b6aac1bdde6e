"""Results of probes; exit codes and failures to start have the sentences of runs."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Maker

SENTENCES: Mapping[ReasonCode, Maker] = {
    "probe_timeout": "no answer in time",
    "probe_status": "status {status}",
    "probe_not_http": "the answer is not HTTP",
    "probe_failed": "{error}",
}
