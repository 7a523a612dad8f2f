"""The lessons as a person walks them: run all, and use every control by keyboard. test_sliders.py has the others."""


def test_start_here(open_lesson):
    lesson = open_lesson("00_start_here")
    lesson.run_all(seconds=180)
    guess = lesson.card("Which share of the numbers")
    guess.shown.get_by_role("textbox").fill("101")
    guess.press("commit")
    guess.wait_for("Type a number from 0 to 100.")
    guess.shown.get_by_role("textbox").fill("5")
    guess.press("commit")
    guess.wait_for("Your guess: 5")
    lesson.no_errors()
    guess.screenshot("00_guess")
    lesson.screenshot("00_start_here")


def test_a_template_is_put_together(open_lesson):
    lesson = open_lesson("05_p_tuning_v1")
    lesson.run_all(seconds=300)
    assert lesson.commit_every_guess() >= 3
    card = lesson.card("Where the pseudo tokens stand")
    for place, number, total in (("before", 0, 6), ("between", 1, 4), ("after", 2, 3)):
        with card.changing("text", "figure"):
            card.type(place, number)
        card.wait_for(f"{total} pseudo tokens")
    with card.changing("figure"):
        card.type("words", "is a native of")
    card.train_and_stop("05_card")
    lesson.no_errors()


def test_a_method_is_placed_and_chosen(open_lesson):
    lesson = open_lesson("08_choosing_a_method")
    lesson.run_all(seconds=300)
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
    lesson.no_errors()
