"""The build fails when the classifier tells who was in its training set."""

import pathlib

import pytest

BASELINE = pathlib.Path(__file__).with_name("baseline.json")


def test_does_not_leak(privacy_audit, model, members, nonmembers):
    audit = privacy_audit(model, members, nonmembers, attacks="standard")
    audit.assert_auc_at_most(0.60)  # fails only when the data say so: the interval's lower end is above it
    audit.assert_no_worse_than(BASELINE)  # what the last release leaked; --diffence-update-baseline writes it


@pytest.mark.privacy(attacks="metric", seed=1)
def test_leaks_provenly_little(privacy_audit, model, members, nonmembers):
    audit = privacy_audit(model, members, nonmembers)
    audit.assert_auc_at_most(0.70, proven=True)  # passes only when the data say so: the upper end is below it
    audit.assert_tpr_at_most(0.10, fpr=0.0)  # of the members, above every one of these non-members
