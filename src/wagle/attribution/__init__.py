"""From a model and two sets of records to masks: gradients, the gradient store, scores.

To add a quantity, a number per weight that a pass over records measures, write its entry in
``quantities``, add its name to those that a recipe may ask for (``wagle.recipe.values``), and add a
sum in ``gradients.passes`` if it is of a new kind. To add a score, see ``scoring``.
"""
