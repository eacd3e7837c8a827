"""The stages that look at what was made: evaluations, attacks, controls, ledger, report."""
