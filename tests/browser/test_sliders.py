"""The lessons with a slider, as a person walks them; apart from the others, so that two workers share them."""

import pytest


@pytest.mark.parametrize(
    ("name", "title", "slider"),
    [
        ("01_full_fine_tuning_and_freezing", "What is trained, from the top", "blocks"),
        ("02_adapters", "An adapter's bottleneck", "bottleneck"),
        ("03_prefix_tuning", "A prefix's length", "length"),
        ("04_prompt_tuning", "A prompt's length", "length"),
        ("06_p_tuning_v2", "Layers with prompts, from the top", "layers"),
        ("07_lora", "LoRA's rank", "rank"),
    ],
)
def test_a_lesson_with_a_card(open_lesson, name, title, slider):
    lesson = open_lesson(name)
    lesson.run_all(seconds=300)
    assert lesson.commit_every_guess() >= 3
    use(lesson.card(title), slider, f"{name[:2]}_card")
    lesson.no_errors()


def use(card, slider, name):
    """Every position that a hand reaches first, then a training that is stopped."""
    for key in ("ArrowRight", "Home", "End", "ArrowLeft"):
        with card.changing("text", "figure"):
            card.move(slider, key)
    card.train_and_stop(name)
