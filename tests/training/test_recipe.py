"""Recipes say what is wrong with them."""

import pytest

from atoll.errors import InvalidRequest
from atoll.training.emoji_data import read_concepts
from atoll.training.recipe import RECIPES, load_recipe


def test_the_recipe_of_the_built_in_model_is_valid_and_its_concepts_are_there():
    recipe, folder = load_recipe("lagoon")
    assert folder == RECIPES
    assert recipe.data.picture_size == 128
    concepts = read_concepts(folder / recipe.data.concepts)
    assert len(concepts) > 200
    assert all(words == words.lower() and "flag" not in words for words in concepts.values())


def test_every_fault_of_a_recipe_is_named_at_once(tmp_path):
    text = (RECIPES / "lagoon.toml").read_text(encoding="utf-8")
    path = tmp_path / "mein rezept.toml"
    faulty = text.replace("conditioning_dropout = 0.1", "conditioning_dropout = 7\nbatchsize = 4")
    path.write_text(faulty, encoding="utf-8")
    with pytest.raises(InvalidRequest) as caught:
        load_recipe(str(path))
    assert "scratch.conditioning_dropout" in caught.value.message
    assert "scratch.batchsize" in caught.value.message
    with pytest.raises(InvalidRequest, match="one of: lagoon"):
        load_recipe("no-such-recipe")
