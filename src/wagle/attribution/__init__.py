"""From a model and two sets of records to masks: gradients, what is kept of them, scores of it.

To add a quantity, a number per weight that a pass over records measures: its entry in ``quantities``,
its name among those that a recipe may ask for (``wagle.recipe.values``), and a sum in
``gradients.passes`` if it is of a new kind. To add a score: see ``scoring``.
"""
