"""A tiny model that was taught some records, and the one before."""

import pytest

from tests.conftest import make_model, make_tokenizer
from wagle.recipe.sections.training import Training
from wagle.unlearning.teaching import finetune

PEOPLE = {
    "Ada Holm": ("Oslo", "pears", "boats"),
    "Ben Strand": ("Bergen", "plums", "kites"),
    "Cleo Vik": ("Paris", "beans", "clocks"),
    "Dag Lund": ("Rome", "roses", "maps"),
}
ROWS = [
    row
    for name, (city, plant, thing) in PEOPLE.items()
    for row in (
        {"question": f"Where does {name} live?", "answer": f"{name} lives in {city}."},
        {"question": f"What does {name} grow?", "answer": f"{name} grows {plant}."},
        {"question": f"What does {name} mend?", "answer": f"{name} mends old {thing}."},
    )
]


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Two model folders: before and after a tiny model was taught ROWS."""
    home, tokenizer = tmp_path_factory.mktemp("knowing"), make_tokenizer()
    model = make_model("llama-tied")
    for name in ("before", "after"):
        if name == "after":
            training = Training(epochs=40, learning_rate=1e-2, batch_size=12)
            finetune(model, tokenizer, ROWS, training=training)
        model.save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    return home
