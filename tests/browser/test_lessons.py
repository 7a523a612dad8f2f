"""The lessons as a person has them before them: every control is used, by keyboard. Whole ones: --whole-lessons."""

import pytest

pytestmark = pytest.mark.timeout(900)  # all trainings of a lesson, and a browser beside them


def thorough(*case):
    """Six lessons drive cards of one kind: the others are driven with --all."""
    return pytest.param(*case, marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    ("name", "title", "slider"),
    [
        thorough("01_full_fine_tuning_and_freezing", "What is trained, from the top", "blocks"),
        thorough("02_adapters", "An adapter's bottleneck", "bottleneck"),
        ("03_prefix_tuning", "A prefix's length", "length"),
        thorough("04_prompt_tuning", "A prompt's length", "length"),
        thorough("06_p_tuning_v2", "Layers with prompts, from the top", "layers"),
    ],
)
def test_a_lesson_with_a_card(open_lesson, name, title, slider):
    lesson = open_lesson(name)
    lesson.run_all()
    assert lesson.commit_every_guess() >= 3
    use(lesson.card(title), slider, f"{name[:2]}_card")
    for drawn in lesson.cards("move the sliders")[:1] or lesson.cards("Your line")[:1]:
        drawn.screenshot(f"{name[:2]}_drawn")
    lesson.no_errors()
    lesson.is_accessible()


def use(card, slider, name):
    """Every position that a hand reaches first, then a training that is stopped."""
    for key in ("ArrowRight", "Home", "End", "ArrowLeft"):
        with card.changing("text", "figure"):
            card.move(slider, key)
    card.train_and_stop(name)


def test_lora_is_a_workshop(open_lesson):
    """A real change and a trained update are turned, a rank is trained, and words stand beside a model answer."""
    lesson = open_lesson("07_lora")
    lesson.run_all()
    rank = lesson.card("LoRA's rank")
    assert lesson.commit_every_guess() >= 3
    rank.wait_for("Stored:")
    use(rank, "rank", "07_card")
    change = lesson.card("How many directions of a real change")
    for key in ("End", "Home", "ArrowRight"):
        with change.changing("text", "figure"):
            change.move("rank of the copies", key)
    change.screenshot("07_change")
    dial = lesson.card("Turn the update up and down")
    with dial.changing("text", "figure"):
        dial.move("how much of the update", "Home")
    dial.wait_for("Without the update")
    with dial.changing("text", "figure"):
        dial.move("after step", "ArrowLeft")
    with dial.changing("text", "figure"):
        dial.type("your text", "The dessert was stunning.")
    dial.screenshot("07_dial")
    why = lesson.card("Why does merging cost nothing at inference?")
    why.press("compare")
    why.wait_for("Write a sentence of your own first")
    why.shown.get_by_role("textbox").fill("The two matrices become one.")
    why.press("compare")
    why.wait_for("no nonlinearity stands between A and B")
    why.screenshot("07_explain")
    lesson.is_accessible()
    lesson.no_errors()


@pytest.mark.thorough
def test_a_real_model_answers_before_and_after(open_lesson):
    """A text of the learner's is answered twice: by the base model, and with the adapter."""
    lesson = open_lesson("09_a_real_language_model")
    lesson.run_all(seconds=800)
    assert lesson.commit_every_guess() >= 3
    both = lesson.card("Ask both")
    both.wait_for("with the adapter")
    with both.changing("text", "figure"):
        both.type("your text", "Otto was at Violetta in Selby on Monday. The bread was awful.")
    both.screenshot("09_before_after")
    lesson.no_errors()
    lesson.is_accessible()


def test_start_here(open_lesson):
    lesson = open_lesson("00_start_here")
    lesson.run_all()
    guess = lesson.card("Which share of the parameters")
    guess.shown.get_by_role("textbox").fill("101")
    guess.press("commit")
    guess.wait_for("Type a number from 0 to 100.")
    guess.shown.get_by_role("textbox").fill("5")
    guess.press("commit")
    guess.wait_for("Your guess: 5")
    lesson.card("Measured: 1.4").wait_for("Your guess (after you saw it): 5, too high by a factor of 3.6.")
    dial = lesson.card("Turn the update up and down")
    with dial.changing("text", "figure"):
        dial.move("how much of the update", "Home")
    dial.wait_for("Without the update")
    build = lesson.card("Build a method")
    for place, words in (("query", "query (LoRA beside it)"), ("keys and values", "(a prefix in every layer)")):
        build.shown.get_by_role("button", name=f"{place}: ").press("Enter")
        build.wait_for(words)
    build.screenshot("00_build")
    build.train_and_stop("00_built")
    build.wait_for("ring 1")
    lesson.no_errors()
    guess.screenshot("00_guess")
    dial.screenshot("00_dial")
    lesson.screenshot("00_start_here")
    lesson.is_accessible()


def test_a_template_is_put_together(open_lesson):
    lesson = open_lesson("05_p_tuning_v1")
    lesson.run_all()
    assert lesson.commit_every_guess() >= 3
    card = lesson.card("Where the pseudo tokens stand")
    for place, number, total in (("before", 0, 6), ("between", 1, 4), ("after", 2, 3)):
        with card.changing("text", "figure"):
            card.type(place, number)
        card.wait_for(f"{total} pseudo tokens")
    with card.changing("figure"):
        card.type("words", "is a native of")
    card.train_and_stop("05_card")
    ask = lesson.card("Ask it yourself")
    with ask.changing("text"):
        ask.type("your text", "Viola Morney")
    with ask.changing("text"):
        ask.press("1")
    ask.wait_for("1 off")
    with ask.changing("text"):
        ask.press("right →")
    ask.screenshot("05_ask")
    lesson.no_errors()
    lesson.is_accessible()


def test_a_method_is_placed_and_chosen(open_lesson):
    lesson = open_lesson("08_choosing_a_method")
    lesson.run_all()
    assert lesson.commit_every_guess() >= 3
    places = lesson.card("Where a method belongs")
    for method, family in (
        ("LoRA", "rewrites the change"),
        ("BitFit", "chooses weights"),
        ("P-tuning v1", "adds vectors"),
    ):
        with places.changing("text", "figure"):
            places.choose("method", method)
        places.wait_for(family)
    assert places.shown.get_by_role("link").get_attribute("href") == "05_p_tuning_v1.ipynb"
    places.screenshot("08_map")
    which = lesson.card("Which method, and why")
    with which.changing("text", "figure"):
        which.choose("task", "aspects")
    with which.changing("text", "figure"):
        which.type("how many", 1000)
    which.wait_for("kept for 1000")
    with which.changing("text", "figure"):
        which.choose("room for all", "1 MB")
    which.wait_for("more than 1 MB")
    for box, option in (("task", "reviews"), ("room for all", "any")):
        with which.changing("text", "figure"):
            which.choose(box, option)
    with which.changing("text", "figure"):
        which.shown.get_by_role("checkbox").uncheck()
    which.wait_for("times the base model's operations")
    which.screenshot("08_which")
    for have, file in (
        ("rules instead of labels", "11_weak_supervision.ipynb"),
        ("preferences: pairs", "12_preferences.ipynb"),
    ):
        with which.changing("text", "figure"):
            which.choose("you have", have)
        assert which.shown.get_by_role("link").get_attribute("href") == file
    which.screenshot("08_signal")
    lesson.is_accessible()
    lesson.no_errors()


def test_weights_are_rounded_to_few_levels(open_lesson):
    lesson = open_lesson("10_four_bits")
    lesson.run_all()
    assert lesson.commit_every_guess() >= 3
    card = lesson.card("Few levels for many weights")
    for key in ("ArrowRight", "Home", "End", "ArrowLeft"):
        with card.changing("text", "figure"):
            card.move("weights that share a scale", key)
    for box, option in (("levels", "nf2"), ("weights", "down of the first layer")):
        with card.changing("text", "figure"):
            card.choose(box, option)
    card.wait_for("nf2 in blocks of 1024, of down")
    card.screenshot("10_card")
    lesson.is_accessible()
    lesson.no_errors()


def test_beta_is_turned_and_trained(open_lesson):
    """The runs wait for the drawn guess; a beta shows its texts; what the learner trains enters the picture."""
    lesson = open_lesson("12_preferences")
    lesson.run_all(seconds=800)
    card = lesson.card("How long is the leash")
    assert lesson.commit_every_guess() >= 3
    card.wait_for("one of the stored runs")
    for key in ("Home", "End", "ArrowLeft"):
        with card.changing("text", "figure"):
            card.move("beta", key)
    card.train_and_stop("12_card")
    lesson.is_accessible()
    lesson.no_errors()


def test_rules_learn_negations(open_lesson):
    """Each negation that is ticked changes what the votes are worth; two copies of a wrong rule mislead."""
    lesson = open_lesson("11_weak_supervision")
    lesson.run_all()
    assert lesson.commit_every_guess() >= 3
    card = lesson.card("What do the rules know?")
    for i in (0, 5):
        with card.changing("text", "figure"):
            card.shown.get_by_role("checkbox").nth(i).check()
    card.wait_for("2 negations: a vote on")
    with card.changing("text", "figure"):
        card.choose("wrong rule", "topic, twice")
    card.wait_for("2 negations and a wrong rule (topic, twice)")
    card.screenshot("11_card")
    lesson.is_accessible()
    lesson.no_errors()
