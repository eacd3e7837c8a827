"""The stages that measure what was made: evaluations, attacks, controls, ledger, report."""
