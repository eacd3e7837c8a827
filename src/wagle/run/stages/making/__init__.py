"""The stages that make something: models, gradients, the mask, the patch."""
